-- Finds an organization, or a space of one, by id or by slug.
--
-- KEYS[1]  the record, if the reference is an id
-- KEYS[2]  who has the slug, if it is one
-- ARGV[1]  what the keys of such records begin with
-- ARGV[2]  the organization that a space must belong to; absent for organizations
-- Answers nothing or {record, id}; id is '' where it was the reference. A slug whose
-- record is not there is an error: they change together.

local record = redis.call('GET', KEYS[1])
if record and (not ARGV[2] or cjson.decode(record).o == ARGV[2]) then
  return { record, '' }
end
local id = redis.call('GET', KEYS[2])
return id and { redis.call('GET', ARGV[1] .. id) or error('record ' .. ARGV[1] .. id .. ' is lost', 0), id }
