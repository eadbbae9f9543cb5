-- Removes claimed items, each as if it were alone.
--
-- KEYS     due times, items
-- ARGV     ids, then the tokens of their claims in the same order
-- Returns  for each id: 1 removed, 0 the claim is void, -2 the item does not parse
local count = #ARGV / 2
local replies, removed, is_removed = {}, {}, {}
-- A command for several of them: one for each takes longer than all else. Not one for all, which would hold every payload at once.
for first = 1, count, 16 do
  local last = math.min(first + 15, count)
  local found = redis.call('HMGET', KEYS[2], unpack(ARGV, first, last))
  for place = first, last do
    local id, bytes, reply = ARGV[place], found[place - first + 1], 0
    -- Whoever names one twice has removed it by the first.
    if bytes and not is_removed[id] then
      -- What begins with the token was written by the claim: to take it apart would tell nothing more.
      if string.sub(bytes, 1, 24) == 'i' .. ARGV[count + place] .. ' ' then
        reply, is_removed[id], removed[#removed + 1] = 1, true, id
      elseif not item(bytes) then
        reply = -2
      end
    end
    replies[place] = reply
  end
end
if #removed > 0 then
  redis.call('HDEL', KEYS[2], unpack(removed))
  redis.call('ZREM', KEYS[1], unpack(removed))
end
return replies
