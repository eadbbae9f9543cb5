-- Part of other scripts: writes a value if a condition holds.
--
-- put(key, version, value, condition, operand, ttl) returns
--   {1} written, now or by the same request before; {0, record or nil} not written; {-1} wrong type; {-2} corrupt
local function put(key, version, value, condition, operand, ttl)
  local kind, stored, fence = record(key)
  if kind == 'value' and stored == version then return { 1 } end
  local met = holds(condition, operand, kind, stored, fence)
  if met == 'wrong_type' then return { -1 } end
  if met == 'corrupt' then return { -2 } end
  if not met then return { 0, redis.call('GET', key) } end
  if kind ~= 'value' then fence = '' end
  if condition == 'fence' then fence = operand end
  write(key, version, fence, value, ttl)
  return { 1 }
end
