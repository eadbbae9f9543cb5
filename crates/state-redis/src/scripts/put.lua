-- Writes a value if a condition holds. The fence of what was there survives, unless the write brings its own.
--
-- KEYS[1]  the key
-- ARGV     version, value, condition, its operand, ttl ('clear', 'keep' or milliseconds)
-- Returns  {1} written, now or by the same request before; {0, record or nil} not written; {-1} wrong type; {-2} corrupt
return put(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
