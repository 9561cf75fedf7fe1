-- Makes or renews the marker KEYS[1] of a hash tag. One that is missing counts as
-- the first use if ARGV[1] is 'first', and as a loss otherwise; if it is 'gone', so
-- does any other: whoever made it did not know what was here before. With ARGV[2], a
-- time in µs, something was lost after it: a marker that knows of a later loss stays.
redis.replicate_commands()
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
if ARGV[1] == 'gone' then redis.call('DEL', KEYS[1]) end
local lost = marked(KEYS[1], ARGV[1] == 'first' and 0 or now, now, false)
if not lost then return redis.error_reply('DAMAGED ' .. KEYS[1]) end
if ARGV[2] and lost < tonumber(ARGV[2]) then
  redis.call('SET', KEYS[1], info('server', 'run_id') .. ' ' .. string.format('%.0f', now))
end
return {}
