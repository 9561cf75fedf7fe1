-- Notes that a replica of keygate is alive and forgets those that are not.
--
-- KEYS[1]  the hash of replicas: when seen (µs), how far it has confirmed, record
-- ARGV[1]  id  ARGV[2]  how far it confirms  ARGV[3]  its record
-- ARGV[4]  how long it counts as alive (µs)

local time = redis.call('TIME')
local now, confirmed = time[1] * 1000000 + time[2], tonumber(ARGV[2])
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local seen, had = string.match(all[i + 1], '^(%d+) (%d+) ')
  if not seen or tonumber(seen) < now - ARGV[4] then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] == ARGV[1] then -- a call that was overtaken takes nothing back
    confirmed = math.max(confirmed, tonumber(had))
  end
end
redis.call('HSET', KEYS[1], ARGV[1], integer(now) .. ' ' .. integer(confirmed) .. ' ' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], integer(ARGV[4] / 1000))
return now
