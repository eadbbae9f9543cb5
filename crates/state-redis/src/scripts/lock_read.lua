-- Reads a lock record and the server's time at the same moment.
--
-- KEYS[1]  the lock record
-- Returns  {record or nil, seconds and microseconds since 1970-01-01 UTC}
return { redis.call('GET', KEYS[1]), redis.call('TIME') }
