-- Part of other scripts: the lock record, as the contract crate's `lock::record` defines it.
--
-- First line `L1 <last token> <owner of the last release, or ->`, then a line for each holder:
-- `<x|s|p> <permits> <token> <expires at us> <held since us> <owner> <meta>`.

local function number(value)
  return string.format('%.0f', value)
end

-- The record of a key without holders whose lease has ended; nil when the text is none. Numbers that are written back as they are
-- stay text, since to read and to print them costs more than all the rest.
local function load(key)
  local text = redis.call('GET', key)
  if not text then return { last_token = '0', last_release = '-', holders = {} } end
  local last_token, last_release, at = string.match(text, '^L1 (%d+) ([%w_%-]+)\n()')
  if not last_token then return nil end
  local holders, length = {}, #text
  while at <= length do
    local mode, permits, token, expires_us, since_us, owner, meta, next_at =
      string.match(text, '^([xsp]) (%d+) (%d+) (%d+) (%d+) ([%w_%-]+) ([^\n]*)\n()', at)
    if not mode then return nil end
    at = next_at
    local ends_us = tonumber(expires_us)
    if ends_us > now_us then
      holders[#holders + 1] = {
        mode = mode, permits = permits, token = token, expires_us = ends_us, since_us = since_us, owner = owner, meta = meta,
      }
    end
  end
  return { last_token = last_token, last_release = last_release, holders = holders }
end

-- Writes the record. It is kept for `retention_ms` after the last lease ends, so that tokens go on rising.
local function save(key, lock, retention_ms)
  local lines, last_us = { 'L1 ' .. lock.last_token .. ' ' .. lock.last_release .. '\n' }, now_us
  for _, holder in ipairs(lock.holders) do
    local ends_us = holder.expires_us
    if ends_us > last_us then last_us = ends_us end
    lines[#lines + 1] = holder.mode .. ' ' .. holder.permits .. ' ' .. holder.token .. ' ' .. number(ends_us) .. ' '
      .. holder.since_us .. ' ' .. holder.owner .. ' ' .. holder.meta .. '\n'
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
