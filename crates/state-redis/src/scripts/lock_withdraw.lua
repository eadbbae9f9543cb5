-- Undoes a grant that its owner never learnt of, and tells waiters. Unlike a release it leaves the owner free to ask again.
--
-- KEYS[1]  the lock record, and the channel of the same name
-- ARGV     owner, retention in ms
-- Returns  1 withdrawn, 0 there was no grant, -2 corrupt
local lock = load(KEYS[1])
if not lock then return -2 end
local place = find(lock, ARGV[1])
if not place then return 0 end
table.remove(lock.holders, place)
save(KEYS[1], lock, ARGV[2])
notify(KEYS[1])
return 1
