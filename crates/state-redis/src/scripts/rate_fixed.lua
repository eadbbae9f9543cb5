-- Counts a request in a fixed window, which begins with the first request after the last window ended.
--
-- KEYS[1]  the window's counter
-- ARGV     limit, cost, window in milliseconds
-- Returns  {1 allowed or 0 refused, requests counted, milliseconds until the window ends}; {-2} corrupt
return fixed(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
