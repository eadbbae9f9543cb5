-- Part of other scripts: counts a request in a sliding window, a log with the time of each allowed request.
--
-- sliding(key, limit, cost, window_ms, operation) returns
--   {1 allowed or 0 refused, requests counted, us until the newest leaves, us until enough of the oldest left}
local function sliding(key, limit, cost, window_ms, operation)
  limit, cost = tonumber(limit), tonumber(cost)
  local window_us = tonumber(window_ms) * 1000
  local first = operation
  if cost > 1 then first = operation .. ':0' end

  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now_us - window_us))
  local used = redis.call('ZCARD', key)
  local allowed, retry_us = 1, 0
  if not redis.call('ZSCORE', key, first) then
    if used + cost > limit then
      allowed = 0
      local last_to_leave = used + cost - limit - 1
      local oldest = redis.call('ZRANGE', key, last_to_leave, last_to_leave, 'WITHSCORES')
      retry_us = tonumber(oldest[2]) + window_us - now_us
    else
      local score = string.format('%.0f', now_us)
      redis.call('ZADD', key, score, first)
      for i = 1, cost - 1 do
        redis.call('ZADD', key, score, operation .. ':' .. i)
      end
      redis.call('PEXPIRE', key, window_ms)
      used = used + cost
    end
  end
  local newest = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  local reset_us = 0
  if newest[2] then reset_us = tonumber(newest[2]) + window_us - now_us end
  return { allowed, used, reset_us, retry_us }
end
