-- Says how long the server may not grant locks, since it has not been primary for long enough.
--
-- KEYS[1]  the record: the name of the primary, and from when on it grants, in milliseconds since 1970
-- ARGV     this server's name, the duration in milliseconds
-- Returns  milliseconds until it may grant, 0 when it may
local text = redis.call('GET', KEYS[1])
local name, from_ms
if text then name, from_ms = string.match(text, '^(%w+) (%d+)$') end
if name ~= ARGV[1] then
  from_ms = after_ms + tonumber(ARGV[2])
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. string.format('%.0f', from_ms))
end
return math.max(tonumber(from_ms) - now_ms, 0)
