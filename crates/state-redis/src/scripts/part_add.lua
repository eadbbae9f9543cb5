-- Part of other scripts: exact 64-bit addition with bounds.
--
-- Lua numbers are exact only up to 2^53, so INCRBY adds, and decimals are compared as text.

-- Whether decimal text a is below b.
local function below(a, b)
  local a_negative, b_negative = string.sub(a, 1, 1) == '-', string.sub(b, 1, 1) == '-'
  if a_negative ~= b_negative then return a_negative end
  if #a ~= #b then return (#a < #b) ~= a_negative end
  return a ~= b and (a < b) ~= a_negative
end

-- Puts a counter back to what it was; '' means that there was none.
local function restore(key, before)
  if before == '' then
    redis.call('DEL', key)
  else
    redis.call('SET', key, before, 'KEEPTTL')
  end
end

-- add(key, before, delta, min, max) adds to the counter whose text is `before` ('' when absent; bounds '' when there are none).
-- Returns 'applied', the text after it; or 'crossed', the text to clamp to; or 'overflow'; or 'corrupt'.
-- Only 'applied' has changed anything. It keeps the time to live.
local function add(key, before, delta, min, max)
  local current = before
  if before == '' then current = '0' end
  local falling = string.sub(delta, 1, 1) == '-'
  local bound = max
  if falling then bound = min end
  if delta == '0' then bound = '' end
  if bound ~= '' then
    local clamped = bound
    if falling then
      if below(current, bound) then clamped = current end
    elseif below(bound, current) then
      clamped = current
    end
    -- At or beyond the bound already: known without touching the counter, which is what a refused caller meets most.
    if clamped == current then return 'crossed', clamped end
    bound = clamped
  end
  local reply = redis.pcall('INCRBY', key, delta)
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, 'overflow', 1, true) then
      -- Beyond the range is beyond the bound as well.
      if bound ~= '' then return 'crossed', bound end
      return 'overflow'
    end
    if string.find(reply.err, 'not an integer', 1, true) then return 'corrupt' end
    error(reply)
  end
  local after
  if reply > -9007199254740992 and reply < 9007199254740992 then
    after = string.format('%.0f', reply)
  else
    after = redis.call('GET', key)
  end
  if bound ~= '' and ((falling and below(after, bound)) or (not falling and below(bound, after))) then
    restore(key, before)
    return 'crossed', bound
  end
  return 'applied', after
end
