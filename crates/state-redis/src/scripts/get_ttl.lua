-- Reads a record and its remaining time to live at one moment.
--
-- KEYS[1]  the key
-- Returns  nil, or {record, milliseconds}; -1 when it does not expire
local bytes = redis.call('GET', KEYS[1])
if not bytes then return false end
return { bytes, redis.call('PTTL', KEYS[1]) }
