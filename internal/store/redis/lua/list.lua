-- Reads a page of records, newest first: the members of a sorted set whose
-- scores are all 0 stand in the order of their bytes.
--
-- KEYS[1]  the set
-- ARGV[1]  what the keys of its records begin with
-- ARGV[2]  what its members begin with, before the id
-- ARGV[3]  the id before which the page starts, '' for the newest
-- ARGV[4]  the most records
-- Answers {id, record, …}.

local first, last = '[' .. ARGV[2], '(' .. ARGV[2] .. ARGV[3]
if ARGV[3] == '' then
  last = '(' .. ARGV[2] .. '\255'
end
local out = {}
for _, member in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[1], last, first, 'LIMIT', 0, ARGV[4])) do
  local id = string.sub(member, #ARGV[2] + 1)
  local record = redis.call('GET', ARGV[1] .. id)
  if record then
    out[#out + 1] = id
    out[#out + 1] = record
  end
end
return out
