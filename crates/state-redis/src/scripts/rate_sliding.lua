-- Counts a request in a sliding window: a log with the time of each allowed request.
--
-- KEYS[1]  the log: members are operation ids, scores microseconds
-- ARGV     limit, cost, window in milliseconds, operation id
-- Returns  {1 allowed or 0 refused, requests counted, us until the newest leaves, us until enough of the oldest left}
local limit, cost = tonumber(ARGV[1]), tonumber(ARGV[2])
local window_us = tonumber(ARGV[3]) * 1000
local operation = ARGV[4]
local first = operation
if cost > 1 then first = operation .. ':0' end

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now_us - window_us))
local used = redis.call('ZCARD', KEYS[1])
local allowed, retry_us = 1, 0
if not redis.call('ZSCORE', KEYS[1], first) then
  if used + cost > limit then
    allowed = 0
    local last_to_leave = used + cost - limit - 1
    local oldest = redis.call('ZRANGE', KEYS[1], last_to_leave, last_to_leave, 'WITHSCORES')
    retry_us = tonumber(oldest[2]) + window_us - now_us
  else
    local score = string.format('%.0f', now_us)
    redis.call('ZADD', KEYS[1], score, first)
    for i = 1, cost - 1 do
      redis.call('ZADD', KEYS[1], score, operation .. ':' .. i)
    end
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    used = used + cost
  end
end
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
local reset_us = 0
if newest[2] then reset_us = tonumber(newest[2]) + window_us - now_us end
return { allowed, used, reset_us, retry_us }
