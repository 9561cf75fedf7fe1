-- Reads a page of keys that pass a filter. One set is walked, in its own order;
-- what its members alone do not tell is looked up in the records of a bounded
-- number of them.
--
-- ARGV[1]  JSON: order ("id", "name", "used" or "ends"), sets [{set, prefix, checks}] of
--          which the smallest will do, suffix (of the sets of one organization),
--          limit, names and records (the most that are looked at), and what the
--          checks compare with: organization, account, space, name, query, status,
--          unused, expires, at (µs)
-- ARGV[2]  the position before which, in the set's order, everything was seen
--
-- Answers {position, id, record, last activity, uses, …}; the position is '' at
-- the end.

local f, after = cjson.decode(ARGV[1]), ARGV[2]

-- An index that was evicted would make keys disappear that work.
local function whole(suffix)
  local n = redis.call('ZCARD', P .. 'keys' .. suffix)
  for _, set in ipairs({ 'names', 'used' }) do
    if redis.call('ZCARD', P .. set .. suffix) ~= n then
      error('a part of the index of keys' .. suffix .. ' is lost', 0)
    end
  end
end

local function need(id)
  return redis.call('GET', P .. 'key:' .. id) or error('record key:' .. id .. ' is lost', 0)
end

local function status(key)
  return key.r and 'revoked' or key.x and key.x <= f.at and 'expired' or key.z and 'paused' or 'active'
end

-- What is to be looked up in the records.
local check = {}

function check.organization(key)
  return key.o == f.organization
end

function check.account(key)
  return key.a == f.account
end

function check.space(key)
  return key.sp == f.space
end

function check.name(key)
  return key.n == f.name
end

function check.query(key)
  return string.find(key.f or key.n, f.query, 1, true)
end

function check.status(key)
  return status(key) == f.status
end

function check.unused(_, id)
  return tonumber(redis.call('ZSCORE', P .. 'used', id)) <= f.unused
end

function check.expires(key)
  return not key.r and key.x and key.x > f.at and key.x <= f.expires
end

-- The walks: each returns a function that reads the next n members, and one that
-- makes of a member its id and its position; the id is nil where the member itself
-- does not pass.
local walk = {}

-- The members of a set whose scores are all 0 stand in the order of their bytes.
function walk.id(set)
  local from, last = '[' .. set.prefix, '(' .. set.prefix .. (after == '' and '\255' or after)
  local function read(n)
    local members = redis.call('ZREVRANGEBYLEX', P .. set.set, last, from, 'LIMIT', 0, n)
    last = '(' .. (members[#members] or '')
    return members
  end
  return read, function(member)
    local id = string.sub(member, #set.prefix + 1)
    return id, id
  end
end

function walk.name(set)
  local from = after == '' and '-' or '(' .. after
  local function read(n)
    local members = redis.call('ZRANGEBYLEX', P .. set.set, from, '+', 'LIMIT', 0, n)
    from = '(' .. (members[#members] or '')
    return members
  end
  return read, function(member)
    local _, last = string.find(member, f.query, 1, true)
    if last and last < string.find(member, '\0', 1, true) then
      return string.match(member, '[^%z]+$'), member
    end
    return nil, member
  end
end

-- by_score walks from a rank to a score, both included.
local function by_score(set, first, most)
  local name, scores = P .. set.set, {}
  local past = redis.call('ZCOUNT', name, '-inf', integer(most))
  if after ~= '' then
    first = math.max(first, rank(name, string.match(after, '^(%S+) (.*)$')))
  end
  local function read(n)
    local members, stop = {}, math.min(first + n, past) - 1
    if first > stop then
      return members
    end
    local scored = redis.call('ZRANGE', name, first, stop, 'WITHSCORES')
    for i = 1, #scored, 2 do
      members[#members + 1] = scored[i]
      scores[scored[i]] = scored[i + 1]
    end
    first = stop + 1
    return members
  end
  return read, function(id)
    return id, scores[id] .. ' ' .. id
  end
end

function walk.used(set)
  return by_score(set, 0, f.unused)
end

function walk.ends(set)
  return by_score(set, redis.call('ZCOUNT', P .. set.set, '-inf', integer(f.at)), f.expires)
end

-- size tells the smaller of sets; a prefix, which only sets of names have, is
-- that of the members in question.
local function size(set)
  if set.prefix == '' then
    return redis.call('ZCARD', P .. set.set)
  end
  return redis.call('ZLEXCOUNT', P .. set.set, '[' .. set.prefix, '(' .. set.prefix .. '\255')
end

local function smallest(sets)
  local best, least
  for _, set in ipairs(sets) do
    local n = size(set)
    if not least or n < least then
      best, least = set, n
    end
  end
  return best
end

local function passes(checks, id, record)
  if #checks == 0 then
    return true
  end
  local key = cjson.decode(record)
  for _, name in ipairs(checks) do
    if not check[name](key, id) then
      return false
    end
  end
  return true
end

-- collect walks a set until the page is full, the set at its end, or enough was
-- looked at.
local function collect(set)
  local read, place = walk[f.order](set)
  local ids, records, names, fetched, position = {}, {}, 0, 0, after
  local chunk = math.min(#set.checks == 0 and f.order ~= 'name' and f.limit + 1 or 250, 250)
  while true do
    local members = read(chunk)
    for _, member in ipairs(members) do
      if #ids == f.limit or names == f.names or fetched == f.records then
        return ids, records, position
      end
      names = names + 1
      local id, at = place(member)
      position = at
      if id then
        local record = need(id)
        fetched = fetched + (#set.checks == 0 and 0 or 1)
        if passes(set.checks, id, record) then
          ids[#ids + 1] = id
          records[#ids] = record
        end
      end
    end
    if #members < chunk then
      return ids, records, ''
    end
  end
end

whole('')
if f.suffix ~= '' then
  whole(f.suffix)
end
local ids, records, position = collect(smallest(f.sets))
local out = { position }
for first = 1, #ids, 250 do -- Lua's stack is bounded
  local some = { unpack(ids, first, math.min(first + 249, #ids)) }
  local active, uses = redis.call('ZMSCORE', P .. 'used', unpack(some)), redis.call('HMGET', P .. 'uses', unpack(some))
  for i, id in ipairs(some) do
    out[#out + 1] = id
    out[#out + 1] = records[first + i - 1]
    out[#out + 1] = active[i] or ''
    out[#out + 1] = uses[i] or ''
  end
end
return out
