-- Applies several operations at one moment, or none.
--
-- KEYS     one per operation
-- ARGV     the fields of each operation, one after the other:
--            check      'c', condition, operand
--            put        'p', condition, operand, version, value, ttl ('clear', 'keep' or milliseconds)
--            delete     'd', condition, operand
--            increment  'i', delta, min or '', max or '', 'keep', 'create' or 'refresh', window in milliseconds or ''
-- Returns  {1} committed, now or by the same request before; {0, index, record or nil} refused by this operation;
--          or {-1, index} wrong type, {-2, index} corrupt, {-3, index} overflow; indices from 0
--
-- Increments are made while the conditions are checked and taken back if one fails: nobody sees that, and Redis does the
-- arithmetic. All else is written after the last check.
local FIELDS = { c = 3, p = 6, d = 3, i = 6 }
local ops, at = {}, 1
for index = 1, #KEYS do
  local code = ARGV[at]
  local kind, version, fence = record(KEYS[index])
  ops[index] = { code = code, at = at, kind = kind, version = version, fence = fence }
  -- All or nothing: one of its writes found means that all of the request was applied.
  if code == 'p' and kind == 'value' and version == ARGV[at + 3] then return { 1 } end
  at = at + FIELDS[code]
end

local function failed(index, status)
  for done = 1, index - 1 do
    if ops[done].code == 'i' then
      restore(KEYS[done], ops[done].version or '')
    end
  end
  if status == 0 then return { 0, index - 1, redis.call('GET', KEYS[index]) } end
  return { status, index - 1 }
end

for index, op in ipairs(ops) do
  local met
  if op.code == 'i' then
    if op.kind == 'value' then
      met = 'wrong_type'
    elseif op.kind == 'corrupt' then
      met = 'corrupt'
    else
      local step = add(KEYS[index], op.version or '', ARGV[op.at + 1], ARGV[op.at + 2], ARGV[op.at + 3])
      if step == 'overflow' then return failed(index, -3) end
      met = step == 'applied'
      if step == 'corrupt' then met = 'corrupt' end
    end
  else
    met = holds(ARGV[op.at + 1], ARGV[op.at + 2], op.kind, op.version, op.fence)
  end
  if met == 'wrong_type' then return failed(index, -1) end
  if met == 'corrupt' then return failed(index, -2) end
  if not met then return failed(index, 0) end
end

for index, op in ipairs(ops) do
  local key, field = KEYS[index], op.at
  if op.code == 'p' then
    local fence = ''
    if op.kind == 'value' then fence = op.fence end
    if ARGV[field + 1] == 'fence' then fence = ARGV[field + 2] end
    write(key, ARGV[field + 3], fence, ARGV[field + 4], ARGV[field + 5])
  elseif op.code == 'd' then
    redis.call('DEL', key)
  elseif op.code == 'i' then
    local window = ARGV[field + 4]
    if window == 'refresh' or (window == 'create' and op.kind == 'none') then
      redis.call('PEXPIRE', key, ARGV[field + 5])
    end
  end
end
return { 1 }
