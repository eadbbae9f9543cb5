-- Reads and deletes an entry. What is no record of ours stays.
--
-- KEYS[1]  the key
-- Returns  nil, the record, or -2 corrupt
local kind = record(KEYS[1])
if kind == 'corrupt' then return -2 end
return redis.call('GETDEL', KEYS[1])
