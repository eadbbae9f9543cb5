-- Adds to a counter, within bounds, and sets its window in the same step.
--
-- KEYS[1]  the key
-- ARGV     delta, min or '', max or '', 'refuse' or 'clamp', 'keep', 'create' or 'refresh', window in milliseconds or ''
-- Returns  {status, counter as text, milliseconds to live or -1}; status 1 applied, 2 clamped, 0 refused;
--          or {-1} wrong type, {-2} corrupt, {-3} overflow
local kind, before = record(KEYS[1])
if kind == 'value' then return { -1 } end
if kind == 'corrupt' then return { -2 } end
before = before or ''
local step, after = add(KEYS[1], before, ARGV[1], ARGV[2], ARGV[3])
if step == 'corrupt' then return { -2 } end
if step == 'overflow' then return { -3 } end
local status = 1
if step == 'crossed' then
  if ARGV[4] == 'refuse' then
    local ttl_ms = redis.call('PTTL', KEYS[1])
    if before == '' then return { 0, '0', -1 } end
    return { 0, before, ttl_ms }
  end
  status = 2
  redis.call('SET', KEYS[1], after, 'KEEPTTL')
end
if ARGV[5] == 'refresh' or (ARGV[5] == 'create' and before == '') then
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
end
return { status, after, redis.call('PTTL', KEYS[1]) }
