-- Notes that keys were used, unless a use is stored that is hardly older.
--
-- KEYS[1]   the set of last activities
-- ARGV[1]   how much older (µs)
-- ARGV[2..] three per use: key, the secret's hash or '', when (µs)

local every = tonumber(ARGV[1])

local function news(stored, at)
  return not stored or at - stored >= every
end

-- owned finds a secret of a key.
local function owned(key, hash)
  for _, secret in ipairs(key.s or {}) do
    if secret.h == hash then
      return secret
    end
  end
end

local function note(id, key, secret, at)
  local active = tonumber(redis.call('ZSCORE', KEYS[1], id) or nil)
  local uses = split(redis.call('HGET', P .. 'uses', id))
  local changed = false
  if news(last_use(key, active, uses), at) then
    redis.call('ZADD', KEYS[1], integer(at), id)
    if key.o then
      redis.call('ZADD', KEYS[1] .. ':' .. key.o, integer(at), id)
    end
    changed = at == (key.c or 0) or uses['-'] ~= nil
    uses['-'] = at == (key.c or 0) and at or nil
  end
  if secret and news(latest(secret.w, uses[secret.h]), at) then
    uses[secret.h], changed = at, true
  end
  if changed and next(uses) then
    redis.call('HSET', P .. 'uses', id, join(uses))
  elseif changed then
    redis.call('HDEL', P .. 'uses', id)
  end
end

for i = 2, #ARGV, 3 do
  local id, hash, at = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local record = redis.call('GET', P .. 'key:' .. id)
  local key = record and cjson.decode(record)
  local secret = key and hash ~= '' and owned(key, hash)
  if key and (secret or hash == '') then
    note(id, key, secret, at)
  end
end
return 1
