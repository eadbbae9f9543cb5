-- Counts a request in a fixed window, which begins with the first request after the last window ended.
--
-- KEYS[1]  the window's counter
-- ARGV     limit, cost, window in milliseconds
-- Returns  {1 allowed or 0 refused, requests counted, milliseconds until the window ends}; {-2} corrupt
--
-- Redis keeps a key throughout the millisecond of its deadline; the next window begins after that.
local limit, cost, window_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = redis.call('GET', KEYS[1])
if stored and not (#stored <= 15 and string.find(stored, '^%d+$')) then return { -2 } end
local used = tonumber(stored or '0')
if stored and redis.call('PTTL', KEYS[1]) < 0 then
  -- Somebody has made the window permanent. It would refuse for ever, so it ends one window from now.
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
if used + cost > limit then
  return { 0, used, redis.call('PTTL', KEYS[1]) + 1 }
end
redis.call('INCRBY', KEYS[1], ARGV[2])
if not stored then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(window_ms - 1, 1)))
end
return { 1, used + cost, redis.call('PTTL', KEYS[1]) + 1 }
