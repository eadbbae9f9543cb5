-- Counts a request by the generic cell rate algorithm.
--
-- KEYS[1]  the theoretical arrival time in microseconds
-- ARGV     emission interval in us, tolerance in us, cost
-- Returns  {1 allowed or 0 refused, us used of the tolerance, us until it would be allowed}; {-2} corrupt
return gcra(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
