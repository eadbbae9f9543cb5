-- Part of other scripts: counts a request by the generic cell rate algorithm, in the same steps as `gcra` of the contract crate.
--
-- gcra(key, emission_us, tolerance_us, cost) returns
--   {1 allowed or 0 refused, us used of the tolerance, us until it would be allowed}; {-2} corrupt
local function gcra(key, emission_us, tolerance_us, cost)
  local stored = redis.call('GET', key)
  if stored and not (#stored <= 19 and string.find(stored, '^%d+$')) then return { -2 } end
  local arrival_us = math.max(tonumber(stored or '0'), now_us)
  local next_us = arrival_us + tonumber(emission_us) * tonumber(cost)
  local allowed_at_us = next_us - tonumber(tolerance_us)
  if now_us < allowed_at_us then
    return { 0, arrival_us - now_us, allowed_at_us - now_us }
  end
  -- Once the time has passed, absence means the same.
  local ttl_ms = math.ceil((next_us - now_us) / 1000)
  redis.call('SET', key, string.format('%.0f', next_us), 'PX', string.format('%.0f', ttl_ms))
  return { 1, next_us - now_us, 0 }
end
