-- Part of other scripts: counts a request in a fixed window.
--
-- fixed(key, limit, cost, window_ms) returns
--   {1 allowed or 0 refused, requests counted, milliseconds until the window ends}; {-2} corrupt
--
-- Redis keeps a key throughout the millisecond of its deadline; the next window begins after that.
local function fixed(key, limit, cost, window_ms)
  local stored = redis.call('GET', key)
  if stored and not (#stored <= 15 and string.find(stored, '^%d+$')) then return { -2 } end
  local used, left_ms = tonumber(stored or '0'), -2
  if stored then
    left_ms = redis.call('PTTL', key)
    if left_ms < 0 then
      -- Somebody has made the window permanent. It would refuse for ever, so it ends one window from now.
      redis.call('PEXPIRE', key, window_ms)
      left_ms = tonumber(window_ms)
    end
  end
  if used + tonumber(cost) > tonumber(limit) then
    return { 0, used, left_ms + 1 }
  end
  if stored then
    redis.call('INCRBY', key, cost)
  else
    left_ms = math.max(tonumber(window_ms) - 1, 1)
    redis.call('SET', key, cost, 'PX', string.format('%.0f', left_ms))
  end
  return { 1, used + tonumber(cost), left_ms + 1 }
end
