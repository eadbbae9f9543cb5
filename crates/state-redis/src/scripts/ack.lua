-- Removes a claimed item.
--
-- KEYS     due times, items
-- ARGV     id, the claim's token
-- Returns  1 removed, 0 the claim is void, -2 the item does not parse
local bytes = redis.call('HGET', KEYS[2], ARGV[1])
if not bytes then return 0 end
local claim = item(bytes)
if not claim then return -2 end
if claim ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
