-- Finds a key by the hash of its secret, with its organization, its space and
-- its owner's grants: one trip and one snapshot.
--
-- KEYS[1]  the hash's key
-- Answers nothing, or {id, key, organization, space, grants}; '' for no record.

local P = 'kg:{kg}:'

local id = redis.call('GET', KEYS[1])
if not id then
  return false
end
local record = redis.call('GET', P .. 'key:' .. id)
if not record then
  return redis.error_reply('ERR keygate: the record of ' .. id .. ' is lost')
end
local key = cjson.decode(record)
local organization = key.o and redis.call('GET', P .. 'organization:' .. key.o)
local space = key.sp and redis.call('GET', P .. 'space:' .. key.sp)
return { id, record, organization or '', space or '', redis.call('GET', P .. 'grants:' .. key.a) or '' }
