-- Makes the schema record unless there is one. A store that lacks it and is not
-- empty has lost it.
--
-- KEYS[1]  the record
-- ARGV[1]  version  ARGV[2]  id  ARGV[3]  now (µs)
-- ARGV[4]  '1' if the caller has seen a store here before: that one is gone
-- Answers {version, id, whether the store is new, whether limits are prepared}.
--
-- Limits are prepared where the ledger's markers stand, or where they are not to
-- be made as for a first use: those that are missing then say that something was
-- lost.

local stored = redis.call('HMGET', KEYS[1], 'version', 'id', 'limits')
if stored[2] then
  return { stored[1], stored[2], 0, stored[3] and 1 or 0 }
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'id', ARGV[2], 'created', ARGV[3])
local rest = redis.call('EXISTS', P .. 'seq', P .. 'changes', P .. 'audit', P .. 'policy', P .. 'organizations', P .. 'keys')
local lost = ARGV[4] == '1' or rest ~= 0
if lost then
  redis.call('HSET', KEYS[1], 'limits', 'lost')
end
return { ARGV[1], ARGV[2], rest == 0 and 1 or 0, lost and 1 or 0 }
