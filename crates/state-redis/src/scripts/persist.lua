-- Removes the time to live. PERSIST alone does not tell an absent key from one that never expires.
--
-- KEYS[1]  the key
-- Returns  1 when there is an entry, 0 otherwise
redis.call('PERSIST', KEYS[1])
return redis.call('EXISTS', KEYS[1])
