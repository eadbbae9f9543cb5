-- Part of other scripts: writes a value record.
--
-- write(key, version, fence, value, ttl): fence is '' or 14 hexadecimal digits; ttl is 'clear', 'keep' or milliseconds.
local function write(key, version, fence, value, ttl)
  local bytes
  if fence == '' then
    bytes = 'v' .. version .. ' ' .. value
  else
    bytes = 'f' .. version .. fence .. ' ' .. value
  end
  if ttl == 'clear' then
    redis.call('SET', key, bytes)
  elseif ttl == 'keep' then
    redis.call('SET', key, bytes, 'KEEPTTL')
  else
    redis.call('SET', key, bytes, 'PX', ttl)
  end
end
