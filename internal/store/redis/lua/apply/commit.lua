-- The audit log is a hash of entries, their ids in the order of their instants,
-- and the same for each organization: there is no command here that changes or
-- removes one.
local logged = {}

function write.audit(id, _, record, organization)
  if logged[id] or redis.call('HEXISTS', P .. 'entries', id) == 1 then
    refuse('exists', 'audit entry', 'id', id)
  end
  logged[id] = true
  local at = integer(cjson.decode(record).at or 0)
  later('HSET', P .. 'entries', id, record)
  later('ZADD', P .. 'audit', at, id)
  if organization ~= '' then
    later('ZADD', P .. 'audit:' .. organization, at, id)
  end
end

-- bound counts the keys that are neither revoked nor expired as they will be.
local function bound(organization, max)
  local stored = get(P .. 'organization:' .. organization)
  if not stored then
    refuse('gone', 'organization', organization)
  end
  if max < 0 then -- unlimited
    return
  end
  local set = P .. 'live:' .. organization
  local n = redis.call('ZCOUNT', set, '(' .. integer(meta.at), '+inf')
  for id, expires in pairs(live[organization] or {}) do
    local before = tonumber(redis.call('ZSCORE', set, id) or '-inf')
    n = n - (before > meta.at and 1 or 0) + (expires and expires > meta.at and 1 or 0)
  end
  if n > max then
    refuse('many', cjson.decode(stored).s)
  end
end

-- check stages the change and returns the policy's number.
local function check()
  local schema = redis.call('HMGET', KEYS[1], 'version', 'id')
  if not schema[2] then -- the first use, or the store was emptied under us
    later('HSET', KEYS[1], 'version', meta.known, 'id', meta.token, 'created', integer(meta.at))
  elseif tonumber(schema[1]) > meta.known then
    refuse('schema', schema[1])
  end
  local kept = meta.answer and redis.call('GET', P .. 'remembered:' .. meta.answer.id)
  if kept and cjson.decode(kept).u > meta.at then -- Redis's clock may be behind
    refuse('exists', 'request', 'id', meta.answer.id)
  end
  local number = 0
  if meta.policy then
    local last = redis.call('HMGET', P .. 'policy', 'number', 'digest')
    number = tonumber(last[1] or '0')
    if last[2] == meta.policy then
      return number, true
    end
    number = number + 1
    later('HSET', P .. 'policy', 'number', number, 'digest', meta.policy, 'at', integer(meta.at))
  end
  for i = 2, #ARGV, 5 do
    write[ARGV[i]](ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4])
  end
  if meta.max then
    bound(meta.max.organization, meta.max.max)
  end
  return number, false
end

-- end of the feed: its counter or, were that lost, its newest entry.
local function last()
  local seq = redis.call('GET', P .. 'seq')
  if seq then
    return tonumber(seq)
  end
  local newest = redis.call('XREVRANGE', P .. 'changes', '+', '-', 'COUNT', 1)[1]
  return newest and tonumber(string.match(newest[1], '^%d+')) or 0
end

-- A change that was made already, whose answer was lost.
local done = P .. 'done:' .. meta.token
local before = redis.call('GET', done)
if before then
  return { 'ok', string.match(before, '^(%d+) (%d+)$') }
end

local fine, number, known = pcall(check)
if not fine then
  local why = number
  if type(why) ~= 'table' then
    return redis.error_reply('-' .. why)
  end
  return why.refusal or why -- Redis's own error is a table too
end
if known then
  return { 'ok', integer(number), '0' }
end

local seq = #feed > 0 and last()
local made = { 'ok', integer(number), seq and integer(seq + #feed) or '0' }

-- From here on nothing may fail. Memory, too, is checked by Redis at the first
-- write only.
redis.call('SET', done, made[2] .. ' ' .. made[3], 'PX', meta.remember)
if meta.answer then
  local now = redis.call('TIME')
  local left = meta.answer.ends - now[1] * 1000 - math.floor(now[2] / 1000)
  if left > 0 then
    redis.call('SET', P .. 'remembered:' .. meta.answer.id, meta.answer.record, 'PX', integer(left))
  else -- one that was kept there is over too
    redis.call('DEL', P .. 'remembered:' .. meta.answer.id)
  end
end
for _, key in ipairs(touched) do
  if staged[key] then
    redis.call('SET', key, staged[key])
  else
    redis.call('DEL', key)
  end
end
for _, command in ipairs(commands) do
  redis.call(unpack(command))
end
for id, n in pairs(granted) do
  if n > 0 then
    redis.call('HSET', P .. 'granted', id, integer(n))
  else
    redis.call('HDEL', P .. 'granted', id)
  end
end
if seq then
  for i, entry in ipairs(feed) do
    redis.call('XADD', P .. 'changes', integer(seq + i) .. '-0', unpack(entry))
  end
  redis.call('SET', P .. 'seq', made[3])
  redis.call('XTRIM', P .. 'changes', 'MAXLEN', '~', meta.keep)
end
return made
