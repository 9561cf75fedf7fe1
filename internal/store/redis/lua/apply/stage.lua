-- Makes one change of the control plane: everything is checked first and nothing
-- is written before all of it holds, for Redis does not undo what a script did.
--
-- KEYS[1]   the schema record; every other key carries the same hash tag
-- ARGV[1]   JSON: token, known (schema), at (µs), remember (ms), keep (changes),
--           max {organization, max}, policy (a digest), answer {id, record, ends (ms)}
-- ARGV[2..] five per record, in the order of their writing: kind, id, the version
--           that the change is based on (0: a new record), the record as it will be
--           stored, and, for a key, a JSON list of what may be shown of each of its
--           secrets, for an audit entry its organization
--
-- Answers {"ok", policy number, number of the last feed entry} or a refusal
-- {what, …}, which Go turns into the domain's error. Records are JSON that Go
-- wrote; their short fields are listed beside its types. They are stored as they
-- came: a number that went through Lua and back would lose digits.

local meta = cjson.decode(ARGV[1])

-- refuse ends the script before anything is written.
local function refuse(...)
  error({ refusal = { ... } }, 0)
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
