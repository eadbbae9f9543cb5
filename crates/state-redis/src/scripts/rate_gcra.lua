-- Counts a request by the generic cell rate algorithm: the same steps as `gcra` of the contract crate.
--
-- KEYS[1]  the theoretical arrival time in microseconds
-- ARGV     emission interval in us, tolerance in us, cost
-- Returns  {1 allowed or 0 refused, us used of the tolerance, us until it would be allowed}; {-2} corrupt
local emission_us, tolerance_us, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = redis.call('GET', KEYS[1])
if stored and not (#stored <= 19 and string.find(stored, '^%d+$')) then return { -2 } end
local arrival_us = math.max(tonumber(stored or '0'), now_us)
local next_us = arrival_us + emission_us * cost
local allowed_at_us = next_us - tolerance_us
if now_us < allowed_at_us then
  return { 0, arrival_us - now_us, allowed_at_us - now_us }
end
-- Once the time has passed, absence means the same.
local ttl_ms = math.ceil((next_us - now_us) / 1000)
redis.call('SET', KEYS[1], string.format('%.0f', next_us), 'PX', string.format('%.0f', ttl_ms))
return { 1, next_us - now_us, 0 }
