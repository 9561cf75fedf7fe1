-- Makes one change of the control plane: everything is checked first and nothing
-- is written before all of it holds, for Redis does not undo what a script did.
--
-- KEYS[1]   the schema record; every other key carries the same hash tag
-- ARGV[1]   JSON: token, known (schema), at (µs), remember (ms), keep (changes),
--           max {organization, max}, policy (a digest)
-- ARGV[2..] five per record, in the order of their writing: kind, id, the version
--           that the change is based on (0: a new record), the record as it will be
--           stored, and, for a key, a JSON list of what may be shown of each of its
--           secrets
--
-- Answers {"ok", policy number} or a refusal {what, …}, which Go turns into the
-- domain's error. Records are JSON that Go wrote; their one-letter fields are
-- listed beside its types. They are stored as they came: a number that went
-- through Lua and back would lose digits.

local P = 'kg:{kg}:'
local meta = cjson.decode(ARGV[1])

-- refuse ends the script before anything is written.
local function refuse(...)
  error({ refusal = { ... } }, 0)
end

-- integer prints what tostring would print as 1.7e+15.
local function integer(n)
  return string.format('%.0f', n)
end

-- What will be stored, by key, and false for what will be deleted: later checks
-- of the same change see it.
local staged, touched = {}, {}

local function get(key)
  local value = staged[key]
  if value == nil then
    return redis.call('GET', key)
  end
  return value
end

local function put(key, value)
  if staged[key] == nil then
    touched[#touched + 1] = key
  end
  staged[key] = value
end

-- Changes of indexes: no check depends on them, but the count of keys.
local commands = {}

local function later(...)
  commands[#commands + 1] = { ... }
end

-- The feed's entries, each told once.
local feed, told = {}, {}

local function tell(kind, id, organization, version)
  local mark = kind .. ' ' .. id .. ' ' .. version
  if not told[mark] then
    told[mark] = true
    feed[#feed + 1] = { 'k', kind, 'i', id, 'o', organization, 'v', version }
  end
end

-- based returns the stored record that a change replaces, nil for a new one.
local function based(kind, field, id, key, version)
  local stored = get(key)
  if version == 0 then
    if stored then
      refuse('exists', kind, field, id)
    end
    return nil
  end
  if not stored then
    refuse('gone', kind, id)
  end
  local old = cjson.decode(stored)
  if old.v ~= version then
    refuse('conflict', kind, id, integer(old.v))
  end
  return old
end

-- claim takes a unique value for a record.
local function claim(key, id, kind, field, shown)
  local holder = get(key)
  if holder and holder ~= id then
    refuse('exists', kind, field, shown)
  end
  put(key, id)
end

-- refer wants what a record points to: an organization, and a space of it.
local function refer(kind, id, organization, space)
  if organization ~= '' and not get(P .. 'organization:' .. organization) then
    refuse('dangling', kind, id)
  end
  if space ~= '' then
    local stored = get(P .. 'space:' .. space)
    if not stored or cjson.decode(stored).o ~= organization then
      refuse('dangling', kind, id)
    end
  end
end

-- Which keys count against a plan: organization -> key -> expiry or false.
local live = {}

local function expiry(key)
  return not key.r and (key.x or math.huge)
end

local function count(organization, id, expires)
  live[organization] = live[organization] or {}
  live[organization][id] = expires
  if not expires then
    later('ZREM', P .. 'live:' .. organization, id)
  elseif expires == math.huge then
    later('ZADD', P .. 'live:' .. organization, '+inf', id)
  else
    later('ZADD', P .. 'live:' .. organization, integer(expires), id)
  end
end

-- The lists in which a key stands: all of them, its organization's, and both
-- by name.
local function lists(id, key)
  local own = key.o or ''
  local places = { [P .. 'keys'] = id, [P .. 'names'] = key.n .. '\0' .. id }
  if own ~= '' then
    places[P .. 'keys:' .. own] = id
    places[P .. 'names:' .. own] = key.n .. '\0' .. id
  end
  return places
end

local function relist(id, old, new)
  local before, after = old and lists(id, old) or {}, new and lists(id, new) or {}
  for list, member in pairs(before) do
    if after[list] ~= member then
      later('ZREM', list, member)
    end
  end
  for list, member in pairs(after) do
    if before[list] ~= member then
      later('ZADD', list, 0, member)
    end
  end
  local from, to = old and old.o or '', new and new.o or ''
  if from ~= '' and from ~= to then
    count(from, id, false)
  end
  if to ~= '' then
    count(to, id, expiry(new))
  end
end

local function release(id, key)
  for _, secret in ipairs(key.s or {}) do
    if get(P .. 'secret:' .. secret.h) == id then
      put(P .. 'secret:' .. secret.h, false)
    end
  end
end

local write = {}

function write.organization(id, version, record)
  local key, new = P .. 'organization:' .. id, cjson.decode(record)
  local old = based('organization', 'id', id, key, version)
  if old and old.s ~= new.s then
    put(P .. 'slug:' .. old.s, false)
  end
  claim(P .. 'slug:' .. new.s, id, 'organization', 'slug', new.s)
  put(key, record)
  if not old then
    later('ZADD', P .. 'organizations', 0, id)
  end
  tell('organization', id, id, integer(new.v))
end

-- A space stays in its organization: keys and grants are restricted to it.
function write.space(id, version, record)
  local key, new = P .. 'space:' .. id, cjson.decode(record)
  local old = based('space', 'id', id, key, version)
  refer('space', id, new.o, '')
  if old and old.o ~= new.o then
    refuse('dangling', 'space', id)
  end
  local slugs = P .. 'slug:' .. new.o .. ':'
  if old and old.s ~= new.s then
    put(slugs .. old.s, false)
  end
  claim(slugs .. new.s, id, 'space', 'slug', new.s)
  put(key, record)
  if not old then
    later('ZADD', P .. 'spaces:' .. new.o, 0, id)
  end
  tell('space', id, new.o, integer(new.v))
end

function write.account(id, version, record)
  local key, new = P .. 'account:' .. id, cjson.decode(record)
  local old = based('account', 'id', id, key, version)
  local own = new.o or ''
  refer('account', id, own, '')
  put(key, record)
  if not old then
    put(P .. 'grants:' .. id, '') -- so that it is noticed if they are lost
  end
  if old and (old.o or '') ~= own then
    later('ZREM', P .. 'accounts:' .. (old.o or ''), id)
  end
  later('ZADD', P .. 'accounts:' .. own, 0, id)
  tell('account', id, own, integer(new.v))
end

-- An account's grants are lines of one string, which takes a third of what a set
-- would. A grant is told as a change of its account, at the account's version,
-- which a grant does not raise.
function write.grant(id, _, record)
  local new = cjson.decode(record)
  if get(P .. 'grant:' .. id) then
    refuse('exists', 'grant', 'id', id)
  end
  local account = get(P .. 'account:' .. new.a)
  if not account then
    refuse('dangling', 'grant', id)
  end
  refer('grant', id, new.o or '', new.sp or '')
  put(P .. 'grant:' .. id, new.a)
  put(P .. 'grants:' .. new.a, (get(P .. 'grants:' .. new.a) or '') .. id .. ' ' .. record .. '\n')
  account = cjson.decode(account)
  tell('account', new.a, account.o or '', integer(account.v))
end

function write.key(id, version, record, shown)
  local key, new = P .. 'key:' .. id, cjson.decode(record)
  local old = based('key', 'id', id, key, version)
  if not get(P .. 'account:' .. new.a) then
    refuse('dangling', 'key', id)
  end
  refer('key', id, new.o or '', new.sp or '')
  if old then
    release(id, old)
  end
  -- A hash is a credential's shadow; an error shows what may be shown.
  local own, names = {}, cjson.decode(shown)
  for i, secret in ipairs(new.s or {}) do
    if own[secret.h] then
      refuse('exists', 'key', 'hash', names[i])
    end
    own[secret.h] = true
    claim(P .. 'secret:' .. secret.h, id, 'key', 'hash', names[i])
  end
  put(key, record)
  relist(id, old, new)
  tell('key', id, new.o or '', integer(new.v))
end

function write.delete(id, version)
  local key = P .. 'key:' .. id
  local stored = get(key)
  if not stored then
    refuse('gone', 'key', id)
  end
  local old = cjson.decode(stored)
  if old.v ~= version then
    refuse('conflict', 'key', id, integer(old.v))
  end
  release(id, old)
  put(key, false)
  relist(id, old, nil)
  tell('key', id, old.o or '', '0')
end

function write.setting(id, version, record)
  local key = P .. 'setting:' .. id
  based('setting', 'name', id, key, version)
  put(key, record)
  tell('setting', id, '', integer(cjson.decode(record).v))
end

-- The audit log is one sorted set of id and entry: there is no command here that
-- changes or removes one.
local logged = {}

function write.audit(id, _, record)
  local log = P .. 'audit'
  if logged[id] or #redis.call('ZRANGEBYLEX', log, '[' .. id .. '\0', '(' .. id .. '\1', 'LIMIT', 0, 1) > 0 then
    refuse('exists', 'audit entry', 'id', id)
  end
  logged[id] = true
  later('ZADD', log, 0, id .. '\0' .. record)
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
  return { 'ok', before }
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
  return { 'ok', integer(number) }
end

local seq = #feed > 0 and last()

-- From here on nothing may fail. Memory, too, is checked by Redis at the first
-- write only.
redis.call('SET', done, integer(number), 'PX', meta.remember)
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
if seq then
  for _, entry in ipairs(feed) do
    seq = seq + 1
    redis.call('XADD', P .. 'changes', integer(seq) .. '-0', unpack(entry))
  end
  redis.call('SET', P .. 'seq', integer(seq))
  redis.call('XTRIM', P .. 'changes', 'MAXLEN', '~', meta.keep)
end
return { 'ok', integer(number) }
