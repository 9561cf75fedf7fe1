-- Finds a key by the hash of its secret, with its organization, its space and
-- its owner's grants: one trip and one snapshot.
--
-- KEYS[1]  the hash's key
-- Answers nothing, or {id, key, organization, space, grants, last activity, uses};
-- '' for what the key does not have. What it should have and is not there, since it
-- was evicted or is on its way to another node of a cluster, is an error: without
-- it the key would be refused for no reason of its owner's. When it was used is no
-- part of a decision, so that may be missing.

local id = redis.call('GET', KEYS[1])
if not id then
  return false
end
local function need(kind, id)
  return redis.call('GET', P .. kind .. ':' .. id) or error('record ' .. kind .. ':' .. id .. ' is lost', 0)
end
local record = need('key', id)
local key = cjson.decode(record)
local organization = key.o and need('organization', key.o) or ''
local space = key.sp and need('space', key.sp) or ''
return {
  id, record, organization, space, need('grants', key.a),
  redis.call('ZSCORE', P .. 'used', id) or '', redis.call('HGET', P .. 'uses', id) or '',
}
