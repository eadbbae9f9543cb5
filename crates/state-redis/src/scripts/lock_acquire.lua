-- Grants a lock if nobody else's live lease forbids it. An owner that holds it keeps its token, and its lease begins anew.
--
-- KEYS[1]  the lock record
-- ARGV     owner, mode (x, s or p), permits, lease in ms, retention in ms, meta
-- Returns  {1, token} granted; {0, newest token of the holders or 0, us until the first lease ends, 1 if waiting helps} busy;
--          {-2} corrupt; {-3} tokens have run out
local owner, mode, permits = ARGV[1], ARGV[2], tonumber(ARGV[3])
local lock = load(KEYS[1])
if not lock then return { -2 } end
local expires_us = now_us + tonumber(ARGV[4]) * 1000
local place = find(lock, owner)
if place then
  lock.holders[place].expires_us = expires_us
  save(KEYS[1], lock, ARGV[5])
  return { 1, lock.holders[place].token }
end

-- A request that arrives after the release of its own operation must not leave the lock held by nobody.
local released = lock.last_release == owner
local admitted = not released and #lock.holders < permits
if mode == 'x' then
  admitted = admitted and #lock.holders == 0
else
  for _, holder in ipairs(lock.holders) do
    admitted = admitted and holder.mode == mode
  end
end
if not admitted then
  local newest, first_end_us = 0, nil
  for _, holder in ipairs(lock.holders) do
    newest = math.max(newest, holder.token)
    first_end_us = math.min(first_end_us or holder.expires_us, holder.expires_us)
  end
  local waiting_helps = 1
  if released then waiting_helps = 0 end
  return { 0, newest, (first_end_us or now_us) - now_us, waiting_helps }
end

local token = math.max(lock.last_token + 1, now_us)
if token >= 9007199254740992 then return { -3 } end
lock.last_token = token
lock.holders[#lock.holders + 1] = {
  mode = mode, permits = ARGV[3], token = token, expires_us = expires_us, since_us = number(now_us), owner = owner,
  meta = ARGV[6],
}
save(KEYS[1], lock, ARGV[5])
return { 1, token }
