-- KEYS[1] gets the mark ARGV[1], a version, for ARGV[2] ms, unless it has a later
-- one. Versions are below 2^53; the text is stored as it came.
local held = redis.call('GET', KEYS[1])
if not held or tonumber(held) <= tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return {}
