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
    local counter = #header <= 20 and (header == '0' or string.find(header, '^%-?[1-9]%d*$'))
    if counter then return 'counter', header end
    return 'corrupt'
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
