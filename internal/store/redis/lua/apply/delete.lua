-- Deletions come before all else of a change, in the order in which records refer
-- to each other; so a check sees what the deletions before it leave.

-- leave deletes a record, which is returned.
local function leave(kind, id, key, version)
  local stored = get(key)
  if not stored then
    refuse('gone', kind, id)
  end
  local old = cjson.decode(stored)
  if old.v ~= version then
    refuse('conflict', kind, id, integer(old.v))
  end
  put(key, false)
  return old
end

-- unused wants nothing to refer to a record: by says which set has those of a
-- kind, in the order in which they are named.
local function unused(kind, id, by)
  for _, referring in ipairs(by) do
    local set = P .. referring[2]
    if redis.call('ZCARD', set) > (removed[set] or 0) then
      refuse('used', kind, id, referring[1])
    end
  end
end

local function ungranted(kind, id)
  if grants_at(id) > 0 then
    refuse('used', kind, id, 'grants')
  end
end

local function unlist(set, id)
  removed[P .. set] = (removed[P .. set] or 0) + 1
  later('ZREM', P .. set, id)
end

write['delete key'] = function(id, version)
  local old = leave('key', id, P .. 'key:' .. id, version)
  release(id, old)
  relist(id, old, nil)
  tell('key', id, old.o or '', '0')
end

write['delete grant'] = function(id)
  local account = get(P .. 'grant:' .. id)
  if not account then
    refuse('gone', 'grant', id)
  end
  local stored, lines = get(P .. 'account:' .. account), '\n' .. (get(P .. 'grants:' .. account) or '')
  local first, after = string.find(lines, '\n' .. id .. ' ', 1, true)
  if not stored or not first then
    error('ERR the account of grant ' .. id .. ' is lost', 0)
  end
  local stop = string.find(lines, '\n', after, true)
  count_grant(cjson.decode(string.sub(lines, after + 1, stop - 1)), -1)
  put(P .. 'grants:' .. account, string.sub(lines, 2, first) .. string.sub(lines, stop + 1))
  put(P .. 'grant:' .. id, false)
  stored = cjson.decode(stored)
  tell('account', account, stored.o or '', integer(stored.v))
end

-- An account's grants go with it; nobody else remembers them.
write['delete account'] = function(id, version)
  local old = leave('account', id, P .. 'account:' .. id, version)
  unused('account', id, { { 'keys', 'owned:' .. id } })
  for grant, record in string.gmatch(get(P .. 'grants:' .. id) or '', '(%S+) ([^\n]*)\n') do
    put(P .. 'grant:' .. grant, false)
    count_grant(cjson.decode(record), -1)
  end
  put(P .. 'grants:' .. id, false)
  unlist('accounts:' .. (old.o or ''), id)
  tell('account', id, old.o or '', '0')
end

write['delete space'] = function(id, version)
  local old = leave('space', id, P .. 'space:' .. id, version)
  unused('space', id, { { 'keys', 'within:' .. id } })
  ungranted('space', id)
  put(P .. 'slug:' .. old.o .. ':' .. old.s, false)
  unlist('spaces:' .. old.o, id)
  tell('space', id, old.o, '0')
end

write['delete organization'] = function(id, version)
  local old = leave('organization', id, P .. 'organization:' .. id, version)
  unused('organization', id, { { 'keys', 'keys:' .. id }, { 'spaces', 'spaces:' .. id }, { 'accounts', 'accounts:' .. id } })
  ungranted('organization', id)
  put(P .. 'slug:' .. old.s, false)
  unlist('organizations', id)
  tell('organization', id, id, '0')
end
