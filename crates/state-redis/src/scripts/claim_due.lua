-- Claims due items, the earliest first, until the visibility timeout.
--
-- KEYS     due times, items
-- ARGV     limit, visibility in milliseconds, the claim's token
-- Returns  {1, ms until the next item, or -1 when the queue is empty, then for each claimed item: id, the item as it is now};
--          or {-2, id} when the earliest item does not parse: then nothing was claimed
local limit, visible_at = tonumber(ARGV[1]), string.format('%.0f', after_ms + tonumber(ARGV[2]))
local now = string.format('%.0f', now_ms)
local ids = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
local reply, size = { 1, -1 }, 2
local begin = 'i' .. ARGV[3] .. ' '

-- By hundreds: a command for each item takes longer than all else, and one for all of them would hold large ones several times.
local damaged
for first = 1, #ids, 100 do
  local last = math.min(first + 99, #ids)
  local found = redis.call('HMGET', KEYS[2], unpack(ids, first, last))
  local items, times, words = { 'HSET', KEYS[2] }, { 'ZADD', KEYS[1] }, 2
  for index = first, last do
    local id, bytes = ids[index], found[index - first + 1]
    local claim, attempt, due_at
    if bytes then claim, attempt, due_at = item(bytes) end
    if not claim then
      damaged = id
      break
    end
    bytes = begin .. math.min(attempt + 1, 4294967295) .. string.sub(bytes, due_at)
    items[words + 1], items[words + 2] = id, bytes
    times[words + 1], times[words + 2] = visible_at, id
    reply[size + 1], reply[size + 2] = id, bytes
    words, size = words + 2, size + 2
  end
  if words > 2 then
    redis.call(unpack(items))
    redis.call(unpack(times))
  end
  -- Those before it are handed out; the next claim then begins with this one and tells what is wrong.
  if damaged then break end
end
if damaged and size == 2 then return { -2, damaged } end

local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then reply[2] = math.max(math.ceil(tonumber(first[2])) - now_ms, 0) end
return reply
