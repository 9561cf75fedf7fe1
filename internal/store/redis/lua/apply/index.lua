-- The sets in which keys stand, and who refers to whom.

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

-- places are the sets in which a key stands, with member and score; most of them
-- exist for all keys and for those of each organization. TestManyKeys measures what
-- one costs: 135 to 150 bytes per key in a large set, 55 to 75 in one of at most 128
-- members, as most of those of organizations and accounts are.
local function places(id, key, active)
  local out = {}
  local function stand(set, member, score)
    out[P .. set] = { member, score }
    if key.o then
      out[P .. set .. ':' .. key.o] = { member, score }
    end
  end
  stand('keys', id, '0')
  -- In lower case, to be searched, and as written, where that is another.
  stand('names', (key.f or key.n) .. '\0' .. (key.f and key.n or '') .. '\0' .. id, '0')
  if active then
    stand('used', id, integer(active))
  end
  if key.r then
    stand('revoked', id, '0')
  elseif key.z then
    stand('paused', id, '0')
  end
  if key.x and not key.r then -- those of an organization are in its set "live"
    out[P .. 'expiring'] = { id, integer(key.x) }
  end
  out[P .. 'owned:' .. key.a] = { id, '0' }
  if key.sp then
    out[P .. 'within:' .. key.sp] = { id, '0' }
  end
  return out
end

-- What is known of the uses of keys, as the change leaves it.
local known = {}

local function uses_of(id)
  known[id] = known[id] or {
    active = tonumber(redis.call('ZSCORE', P .. 'used', id) or nil),
    uses = split(redis.call('HGET', P .. 'uses', id)),
  }
  return known[id]
end

-- carry says what will be known of a key's uses: the later of what is and of what
-- the change says. Secrets that the key no longer has are forgotten.
local function carry(before, old, new)
  local uses, stored, last = {}, {}, new.w
  if old then
    last = latest(last, last_use(old, before.active, before.uses))
    for _, secret in ipairs(old.s or {}) do
      stored[secret.h] = latest(secret.w, before.uses[secret.h])
    end
  end
  for _, secret in ipairs(new.s or {}) do
    local at = stored[secret.h]
    if at and at > (secret.w or -math.huge) then
      uses[secret.h] = at
    end
  end
  if last and last == (new.c or 0) then
    uses['-'] = last
  end
  return { active = last or new.c or 0, uses = uses }
end

-- How many members of a set the change deletes.
local removed = {}

-- relist moves a key from where it stood to where it will: old is nil for a new
-- key, new for one that is deleted.
local function relist(id, old, new)
  local before = old and uses_of(id) or { uses = {} }
  local after = new and carry(before, old, new) or { uses = {} }
  local from, to = old and places(id, old, before.active) or {}, new and places(id, new, after.active) or {}
  for set, at in pairs(from) do
    if not to[set] or to[set][1] ~= at[1] then
      later('ZREM', set, at[1])
      removed[set] = (removed[set] or 0) + (new and 0 or 1)
    end
  end
  for set, at in pairs(to) do
    if not from[set] or from[set][1] ~= at[1] or from[set][2] ~= at[2] then
      later('ZADD', set, at[2], at[1])
    end
  end
  if next(after.uses) then
    later('HSET', P .. 'uses', id, join(after.uses))
  elseif next(before.uses) then
    later('HDEL', P .. 'uses', id)
  end
  known[id] = after
  if old and old.o and not (new and new.o == old.o) then
    count(old.o, id, false)
  end
  if new and new.o then
    count(new.o, id, expiry(new))
  end
end

local function release(id, key)
  for _, secret in ipairs(key.s or {}) do
    if get(P .. 'secret:' .. secret.h) == id then
      put(P .. 'secret:' .. secret.h, false)
    end
  end
end

-- How many grants there are at an organization or a space, whoever holds them: a
-- count takes half of what the set of them would.
local granted = {}

local function grants_at(id)
  return granted[id] or tonumber(redis.call('HGET', P .. 'granted', id) or 0)
end

local function count_grant(grant, by)
  for _, id in ipairs({ grant.o or '', grant.sp or '' }) do
    if id ~= '' then
      granted[id] = grants_at(id) + by
    end
  end
end
