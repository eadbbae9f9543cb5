-- Part of other scripts: the server's time, in microseconds and in milliseconds since 1970-01-01 UTC.
--
-- Where something is to happen not before a time, the current millisecond counts as over: `after_ms`.
--
-- Redis reads it once per script, so everything in a script happens at one moment. Below 2^53 until the year 2255.
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now_ms, after_ms = math.floor(now_us / 1000), math.ceil(now_us / 1000)
