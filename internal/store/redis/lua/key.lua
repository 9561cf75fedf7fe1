-- Reads a key and when it was used.
--
-- KEYS[1]  the record
-- ARGV[1]  the id
-- Answers nothing or {record, last activity, uses}.

local record = redis.call('GET', KEYS[1])
return record and { record, redis.call('ZSCORE', P .. 'used', ARGV[1]) or '', redis.call('HGET', P .. 'uses', ARGV[1]) or '' }
