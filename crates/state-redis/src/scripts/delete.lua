-- Deletes a value if its version or its fence allows it.
--
-- KEYS[1]  the key
-- ARGV     condition ('version' or 'fence'), its operand
-- Returns  {1} deleted; {0} there was nothing; {0, record} not deleted; {-1} wrong type; {-2} corrupt
local kind, version, fence = record(KEYS[1])
if kind == 'none' then return { 0 } end
local met = holds(ARGV[1], ARGV[2], kind, version, fence)
if met == 'wrong_type' then return { -1 } end
if met == 'corrupt' then return { -2 } end
if not met then return { 0, redis.call('GET', KEYS[1]) } end
redis.call('DEL', KEYS[1])
return { 1 }
