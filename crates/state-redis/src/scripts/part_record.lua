-- Part of other scripts: reads the record of a key by its header, without copying the value.
--
-- record(key) returns what is stored:
--   'none'
--   'value', version (22 characters), fence (14 hexadecimal digits, or '')
--   'counter', its decimal text
--   'corrupt'
local function record(key)
  local header = redis.call('GETRANGE', key, 0, 37)
  if header == '' then
    -- GETRANGE does not tell an empty string, which is no record of ours, from an absent key.
    if redis.call('EXISTS', key) == 1 then return 'corrupt' end
    return 'none'
  end
  local lead = string.sub(header, 1, 1)
  if lead ~= 'v' and lead ~= 'f' then
    local sign, digits = string.match(header, '^(%-?)([1-9]%d*)$')
    if header ~= '0' then
      if not digits or #digits > 19 then return 'corrupt' end
      local last = '9223372036854775807'
      if sign == '-' then last = '9223372036854775808' end
      if #digits == 19 and digits > last then return 'corrupt' end
    end
    return 'counter', header
  end
  local version = string.sub(header, 2, 23)
  if #version ~= 22 or string.find(version, '[^%w_%-]') then return 'corrupt' end
  if lead == 'v' then
    if string.sub(header, 24, 24) ~= ' ' then return 'corrupt' end
    return 'value', version, ''
  end
  local fence = string.sub(header, 24, 37)
  if #fence ~= 14 or string.find(fence, '[^0-9a-f]') or string.sub(header, 38, 38) ~= ' ' then
    return 'corrupt'
  end
  return 'value', version, fence
end
