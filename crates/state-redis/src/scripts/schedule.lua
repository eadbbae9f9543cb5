-- Schedules an item, replacing an earlier schedule of the same id. A claim on the earlier one is void then.
--
-- KEYS     due times, items
-- ARGV     id, 'at' or 'after', milliseconds, payload
-- Returns  1 when the id was new, 0 when it replaced one
local due_ms = tonumber(ARGV[3])
if ARGV[2] == 'after' then
  -- Never early, except that zero is due now.
  if due_ms == 0 then due_ms = now_ms else due_ms = after_ms + due_ms end
end
local due = string.format('%.0f', due_ms)
local created = redis.call('HSET', KEYS[2], ARGV[1], 'i- 0 ' .. due .. ' ' .. ARGV[4])
redis.call('ZADD', KEYS[1], due, ARGV[1])
return created
