-- Part of other scripts: reads an item of a queue.
--
-- item(bytes) returns claim ('-' when unclaimed), attempt, position of the blank before the due time; nil when it is none.
local function item(bytes)
  local claim, attempt, due_at = string.match(bytes, '^i([%w_%-]+) (%d+)() %d+ ')
  if not claim or (claim ~= '-' and #claim ~= 22) then return nil end
  return claim, attempt, due_at
end
