-- Ends the owner's lease and tells waiters. Repeated, it reports the same again.
--
-- KEYS[1]  the lock record, and the channel of the same name
-- ARGV     owner, retention in ms, what to tell waiters
-- Returns  1 released, 0 it was not the owner's any more, -2 corrupt
local lock = load(KEYS[1])
if not lock then return -2 end
if lock.last_release == ARGV[1] then return 1 end
local place = find(lock, ARGV[1])
if not place then return 0 end
table.remove(lock.holders, place)
lock.last_release = ARGV[1]
save(KEYS[1], lock, ARGV[2])
notify(KEYS[1], ARGV[3])
return 1
