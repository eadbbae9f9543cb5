-- Claims due items, the earliest first, until the visibility timeout.
--
-- KEYS     due times, items
-- ARGV     limit, visibility in milliseconds, the claim's token
-- Returns  {1, ms until the next item, or -1 when the queue is empty, then for each claimed item: id, attempt, due time in
--          ms as text, payload};
--          or {-2, id} when the earliest item does not parse: then nothing was claimed
local limit, visible_at = tonumber(ARGV[1]), string.format('%.0f', after_ms + tonumber(ARGV[2]))
local now = string.format('%.0f', now_ms)
local ids = redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
local found = {}
for index, id in ipairs(ids) do
  local bytes = redis.call('HGET', KEYS[2], id)
  local claim, attempt, due, payload_at
  if bytes then claim, attempt, due, payload_at = item(bytes) end
  if not claim then
    -- Those before it are handed out; the next claim then begins with this one and tells what is wrong.
    if index == 1 then return { -2, id } end
    break
  end
  found[index] = { math.min(tonumber(attempt) + 1, 4294967295), due, string.sub(bytes, payload_at) }
end

local reply = { 1, -1 }
for index, claimed in ipairs(found) do
  local id, attempt, due, payload = ids[index], claimed[1], claimed[2], claimed[3]
  redis.call('HSET', KEYS[2], id, 'i' .. ARGV[3] .. ' ' .. string.format('%.0f', attempt) .. ' ' .. due .. ' ' .. payload)
  redis.call('ZADD', KEYS[1], visible_at, id)
  reply[#reply + 1] = id
  reply[#reply + 1] = attempt
  reply[#reply + 1] = due
  reply[#reply + 1] = payload
end

local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then reply[2] = math.max(math.ceil(tonumber(first[2])) - now_ms, 0) end
return reply
