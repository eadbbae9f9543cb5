-- Removes an item, claimed or not.
--
-- KEYS     due times, items
-- ARGV     id
-- Returns  1 when it was there, 0 otherwise
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
