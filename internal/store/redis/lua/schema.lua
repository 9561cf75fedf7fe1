-- Makes the schema record unless there is one.
--
-- KEYS[1]  the record
-- ARGV[1]  version  ARGV[2]  id  ARGV[3]  now (µs)
-- Answers {version, id, whether it was made}.

local stored = redis.call('HMGET', KEYS[1], 'version', 'id')
if stored[2] then
  return { stored[1], stored[2], 0 }
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'id', ARGV[2], 'created', ARGV[3])
return { ARGV[1], ARGV[2], 1 }
