-- Part of other scripts: the lock record, as the contract crate's `lock::record` defines it.
--
-- First line `L1 <last token> <owner of the last release, or ->`, then a line for each holder:
-- `<x|s|p> <permits> <token> <expires at us> <held since us> <owner> <meta>`.

local function number(value)
  return string.format('%.0f', value)
end

-- The record of a key without holders whose lease has ended; nil when the text is none.
local function load(key)
  local text = redis.call('GET', key)
  if not text then return { last_token = 0, last_release = '-', holders = {} } end
  local last_token, last_release, rest = string.match(text, '^L1 (%d+) ([%w_%-]+)\n(.*)$')
  if not last_token or (rest ~= '' and string.sub(rest, -1) ~= '\n') then return nil end
  local lock = { last_token = tonumber(last_token), last_release = last_release, holders = {} }
  for line in string.gmatch(rest, '([^\n]*)\n') do
    local mode, permits, token, expires_us, since_us, owner, meta =
      string.match(line, '^([xsp]) (%d+) (%d+) (%d+) (%d+) ([%w_%-]+) (.*)$')
    if not mode then return nil end
    if tonumber(expires_us) > now_us then
      lock.holders[#lock.holders + 1] = {
        mode = mode, permits = permits, token = tonumber(token), expires_us = tonumber(expires_us),
        since_us = since_us, owner = owner, meta = meta,
      }
    end
  end
  return lock
end

-- Writes the record. It is kept for `retention_ms` after the last lease ends, so that tokens go on rising.
local function save(key, lock, retention_ms)
  local lines, last_us = { 'L1 ' .. number(lock.last_token) .. ' ' .. lock.last_release .. '\n' }, now_us
  for _, holder in ipairs(lock.holders) do
    last_us = math.max(last_us, holder.expires_us)
    lines[#lines + 1] = table.concat({
      holder.mode, holder.permits, number(holder.token), number(holder.expires_us), holder.since_us, holder.owner,
      holder.meta,
    }, ' ') .. '\n'
  end
  local kept_ms = math.ceil((last_us - now_us) / 1000) + tonumber(retention_ms)
  redis.call('SET', key, table.concat(lines), 'PX', number(kept_ms))
end

-- The place of an owner among the holders, or nil.
local function find(lock, owner)
  for place, holder in ipairs(lock.holders) do
    if holder.owner == owner then return place end
  end
  return nil
end

-- Tells waiters, with what they may know of it. The right to publish may be missing: then they find out by their own sleep.
local function notify(key, message)
  redis.pcall('PUBLISH', key, message or '')
end
