-- Writes a value if a condition holds. The fence of what was there survives, unless the write brings its own.
--
-- KEYS[1]  the key
-- ARGV     version, value, condition, its operand, ttl ('clear', 'keep' or milliseconds)
-- Returns  {1} written, now or by the same request before; {0, record or nil} not written; {-1} wrong type; {-2} corrupt
local kind, version, fence = record(KEYS[1])
if kind == 'value' and version == ARGV[1] then return { 1 } end
local met = holds(ARGV[3], ARGV[4], kind, version, fence)
if met == 'wrong_type' then return { -1 } end
if met == 'corrupt' then return { -2 } end
if not met then return { 0, redis.call('GET', KEYS[1]) } end
if kind ~= 'value' then fence = '' end
if ARGV[3] == 'fence' then fence = ARGV[4] end
write(KEYS[1], ARGV[1], fence, ARGV[2], ARGV[5])
return { 1 }
