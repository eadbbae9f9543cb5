-- Grants a lock if nobody else's live lease forbids it. An owner that holds it keeps its token, and its lease begins anew.
--
-- KEYS[1]  the lock record
-- ARGV     owner, mode (x, s or p), permits, lease in ms, retention in ms, meta
-- Returns  {1, token} granted; {0, newest token of the holders or 0, us until the first lease ends, 1 if waiting helps} busy;
--          {-2} corrupt; {-3} tokens have run out
return acquire(KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
