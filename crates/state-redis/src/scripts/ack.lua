-- Removes a claimed item.
--
-- KEYS     due times, items
-- ARGV     id, the claim's token
-- Returns  1 removed, 0 the claim is void, -2 the item does not parse
local bytes = redis.call('HGET', KEYS[2], ARGV[1])
if not bytes then return 0 end
-- What begins with the token was written by the claim: to take it apart would tell nothing more.
if string.sub(bytes, 1, 24) ~= 'i' .. ARGV[2] .. ' ' then
  if item(bytes) then return 0 end
  return -2
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
