-- Counts a request in a sliding window.
--
-- KEYS[1]  the log: members are operation ids, scores microseconds
-- ARGV     limit, cost, window in milliseconds, operation id
-- Returns  {1 allowed or 0 refused, requests counted, us until the newest leaves, us until enough of the oldest left}
return sliding(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
