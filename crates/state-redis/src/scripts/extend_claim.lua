-- Keeps a claimed item ours for longer.
--
-- KEYS     due times, items
-- ARGV     id, the claim's token, visibility in milliseconds
-- Returns  1 extended, 0 the claim is void, -2 the item does not parse
local bytes = redis.call('HGET', KEYS[2], ARGV[1])
if not bytes then return 0 end
local claim = item(bytes)
if not claim then return -2 end
if claim ~= ARGV[2] then return 0 end
redis.call('ZADD', KEYS[1], string.format('%.0f', after_ms + tonumber(ARGV[3])), ARGV[1])
return 1
