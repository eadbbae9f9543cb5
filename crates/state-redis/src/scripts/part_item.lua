-- Part of other scripts: reads an item of a queue.
--
-- item(bytes) returns claim ('-' when unclaimed), attempt, position of the blank before the due time; nil when it is none.
local function item(bytes)
  local claim, attempt, due_at, behind = string.match(bytes, '^i([%w_%-]+) (%d+)() %d+() ')
  if not claim or (claim ~= '-' and #claim ~= 22) then return nil end
  -- What the driver could not read must not be claimed: times without leading zeros, which fit into 64 bits.
  local digits = behind - due_at - 1
  if digits > 19 or (digits > 1 and string.byte(bytes, due_at + 1) == 48) then return nil end
  return claim, attempt, due_at
end
