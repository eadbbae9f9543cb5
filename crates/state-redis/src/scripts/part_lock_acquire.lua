-- Part of other scripts: grants a lock if nobody else's live lease forbids it.
--
-- acquire(key, owner, mode, permits, lease_ms, retention_ms, meta) returns
--   {1, token} granted; {0, newest token of the holders or 0, us until the first lease ends, 1 if waiting helps} busy;
--   {-2} corrupt; {-3} tokens have run out
local function acquire(key, owner, mode, permits, lease_ms, retention_ms, meta)
  local lock = load(key)
  if not lock then return { -2 } end
  local expires_us = now_us + tonumber(lease_ms) * 1000
  local place = find(lock, owner)
  if place then
    lock.holders[place].expires_us = expires_us
    save(key, lock, retention_ms)
    return { 1, tonumber(lock.holders[place].token) }
  end

  -- A request that arrives after the release of its own operation must not leave the lock held by nobody.
  local released = lock.last_release == owner
  local admitted = not released and #lock.holders < tonumber(permits)
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
      newest = math.max(newest, tonumber(holder.token))
      first_end_us = math.min(first_end_us or holder.expires_us, holder.expires_us)
    end
    local waiting_helps = 1
    if released then waiting_helps = 0 end
    return { 0, newest, (first_end_us or now_us) - now_us, waiting_helps }
  end

  local token = math.max(tonumber(lock.last_token) + 1, now_us)
  if token >= 9007199254740992 then return { -3 } end
  local text = number(token)
  local since_us = text
  if token ~= now_us then since_us = number(now_us) end
  lock.last_token = text
  lock.holders[#lock.holders + 1] = {
    mode = mode, permits = permits, token = text, expires_us = expires_us, since_us = since_us, owner = owner, meta = meta,
  }
  save(key, lock, retention_ms)
  return { 1, token }
end
