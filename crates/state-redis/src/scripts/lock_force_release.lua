-- Ends all leases and tells waiters.
--
-- KEYS[1]  the lock record, and the channel of the same name
-- ARGV     retention in ms
-- Returns  how many leases were live, or -2 corrupt
local lock = load(KEYS[1])
if not lock then return -2 end
local count = #lock.holders
if count > 0 then
  lock.holders = {}
  save(KEYS[1], lock, ARGV[1])
  notify(KEYS[1])
end
return count
