-- Asks gates in their order, until one does not let pass.
--
-- KEYS     the key of each gate
-- ARGV     for each gate a letter, and what the script of its own takes:
--          p version, value, condition, its operand, ttl; f limit, cost, window in ms; s limit, cost, window in ms, operation id;
--          g emission interval in us, tolerance in us, cost; l owner, mode, permits, lease in ms, retention in ms, meta
-- Returns  what those scripts return, for each gate that was asked: the last one does not begin with 1, unless all let pass
local ask = { p = put, f = fixed, s = sliding, g = gcra, l = acquire }
local takes = { p = 5, f = 3, s = 4, g = 3, l = 6 }
local replies, at = {}, 1
for place, key in ipairs(KEYS) do
  local gate = ARGV[at]
  -- What stops one gate, such as another type under its key, must not hide what the gates before it did.
  local _, reply = pcall(ask[gate], key, unpack(ARGV, at + 1, at + takes[gate]))
  -- Redis 7.0 throws errors as text, others as what `redis.pcall` returns.
  if type(reply) ~= 'table' then reply = redis.error_reply(tostring(reply)) end
  replies[place] = reply
  if reply[1] ~= 1 then break end
  at = at + 1 + takes[gate]
end
return replies
