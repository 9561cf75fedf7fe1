-- Reads a page of records, newest first: the members of a sorted set whose
-- scores are all 0 stand in the order of their bytes.
--
-- KEYS[1]  the set, of ids
-- ARGV[1]  what the keys of its records begin with
-- ARGV[2]  the id before which the page starts, '' for the newest
-- ARGV[3]  the most records
-- Answers {id, record, …}.

local out = {}
for _, id in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[1], ARGV[2] == '' and '+' or '(' .. ARGV[2], '-', 'LIMIT', 0, ARGV[3])) do
  local record = redis.call('GET', ARGV[1] .. id)
  if not record then -- a set and its records change together
    error('record ' .. ARGV[1] .. id .. ' is lost', 0)
  end
  out[#out + 1] = id
  out[#out + 1] = record
end
return out
