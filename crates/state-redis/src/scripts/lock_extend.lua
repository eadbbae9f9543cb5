-- Moves the end of the owner's lease.
--
-- KEYS[1]  the lock record
-- ARGV     owner, lease in ms, retention in ms
-- Returns  1 extended, 0 it is not the owner's any more, -2 corrupt
local lock = load(KEYS[1])
if not lock then return -2 end
local place = find(lock, ARGV[1])
if not place then return 0 end
lock.holders[place].expires_us = now_us + tonumber(ARGV[2]) * 1000
save(KEYS[1], lock, ARGV[3])
return 1
