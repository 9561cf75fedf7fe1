-- Reads a page of the audit log, newest first, of the entries that pass a filter.
--
-- KEYS[1]  the log, or the ids of an organization's entries
-- ARGV[1]  JSON: ids (whether the set has ids), limit, most (entries looked at),
--          checks, and what they compare with: target, actor, action, since, until
-- ARGV[2]  the id before which the page starts, '' for the newest
--
-- Answers {id, entry, …}, the first id being the position, '' at the end.

local f = cjson.decode(ARGV[1])

local check = {}

function check.target(entry)
  return entry.t == f.target
end

function check.actor(entry)
  return entry.by == f.actor or entry.a == f.actor
end

function check.action(entry)
  return entry['do'] == f.action
end

function check.since(entry)
  return (entry.at or 0) >= f.since
end

check['until'] = function(entry)
  return (entry.at or 0) < f['until']
end

local function passes(text)
  local entry = #f.checks > 0 and cjson.decode(text)
  for _, name in ipairs(f.checks) do
    if not check[name](entry) then
      return false
    end
  end
  return true
end

-- read makes of a member its id and its entry.
local function read(member)
  if not f.ids then
    local stop = string.find(member, '\0', 1, true)
    return string.sub(member, 1, stop - 1), string.sub(member, stop + 1)
  end
  local found = redis.call('ZRANGEBYLEX', P .. 'audit', '[' .. member .. '\0', '(' .. member .. '\1', 'LIMIT', 0, 1)[1]
  if not found then
    error('audit entry ' .. member .. ' is lost', 0)
  end
  return member, string.sub(found, #member + 2)
end

local out, position, looked = { '' }, ARGV[2], 0
local chunk = math.min(#f.checks == 0 and f.limit + 1 or 250, 250)
while true do
  local members = redis.call('ZREVRANGEBYLEX', KEYS[1], position == '' and '+' or '(' .. position, '-', 'LIMIT', 0, chunk)
  for _, member in ipairs(members) do
    if #out > 2 * f.limit or looked == f.most then
      out[1] = position
      return out
    end
    local id, text = read(member)
    position, looked = id, looked + (#f.checks == 0 and 0 or 1)
    if passes(text) then
      out[#out + 1] = id
      out[#out + 1] = text
    end
  end
  if #members < chunk then
    return out
  end
end
