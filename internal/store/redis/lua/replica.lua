-- Notes that a replica of keygate is alive and forgets those that are not.
--
-- KEYS[1]  the hash of replicas
-- ARGV[1]  id  ARGV[2]  its record  ARGV[3]  how long it counts as alive (µs)

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
  local seen = tonumber(string.match(redis.call('HGET', KEYS[1], id), '^%d+'))
  if not seen or seen < now - ARGV[3] then
    redis.call('HDEL', KEYS[1], id)
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[3] / 1000))
return now
