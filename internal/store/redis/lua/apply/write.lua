-- What a change writes, by kind.

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
  count_grant(new, 1)
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

function write.setting(id, version, record)
  local key = P .. 'setting:' .. id
  based('setting', 'name', id, key, version)
  put(key, record)
  tell('setting', id, '', integer(cjson.decode(record).v))
end
