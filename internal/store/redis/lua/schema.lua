-- Makes the schema record unless there is one. A store that lacks it and is not
-- empty has lost it.
--
-- KEYS[1]  the record
-- ARGV[1]  version  ARGV[2]  id  ARGV[3]  now (µs)
-- Answers {version, id, whether the store is new}.

local stored = redis.call('HMGET', KEYS[1], 'version', 'id')
if stored[2] then
  return { stored[1], stored[2], 0 }
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'id', ARGV[2], 'created', ARGV[3])
local rest = redis.call('EXISTS', P .. 'seq', P .. 'changes', P .. 'audit', P .. 'policy', P .. 'organizations', P .. 'keys')
return { ARGV[1], ARGV[2], rest == 0 and 1 or 0 }
