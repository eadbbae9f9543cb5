-- Counts a request in a fixed window, which begins with the first request after the last window ended.
--
-- KEYS[1]  the window's counter
-- ARGV     limit, cost, window in milliseconds
-- Returns  {1 allowed or 0 refused, requests counted, milliseconds until the window ends, or 0 without a window}; {-2} corrupt
local limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = redis.call('GET', KEYS[1])
if stored and not (#stored <= 15 and string.find(stored, '^%d+$')) then return { -2 } end
local used = tonumber(stored or '0')
if used + cost > limit then
  return { 0, used, math.max(redis.call('PTTL', KEYS[1]), 0) }
end
redis.call('INCRBY', KEYS[1], ARGV[2])
if not stored then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return { 1, used + cost, math.max(redis.call('PTTL', KEYS[1]), 0) }
