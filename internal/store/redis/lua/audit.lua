-- Reads a page of the audit log, newest first, of the entries that pass a filter.
--
-- KEYS[1]  the ids of the log's entries, or of an organization's, by instant
-- ARGV[1]  JSON: limit, most (entries looked at), since and until (µs; absent for
--          none), checks, and what they compare with: target, actor, action
-- ARGV[2]  the position (instant and id) behind which the page starts, '' for the
--          newest
--
-- Answers {position, id, entry, …}; the position is '' at the end.

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

local function passes(text)
  local entry = #f.checks > 0 and cjson.decode(text)
  for _, name in ipairs(f.checks) do
    if not check[name](entry) then
      return false
    end
  end
  return true
end

-- stretch bounds the ranks of what is to be looked at: from first to last - 1, the
-- newest being the last.
local function stretch()
  local first = f.since and redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. integer(f.since)) or 0
  local last = redis.call('ZCOUNT', KEYS[1], '-inf', f['until'] and '(' .. integer(f['until']) or '+inf')
  if ARGV[2] ~= '' then
    local score, id = string.match(ARGV[2], '^(%S+) (.*)$')
    local seen = rank(KEYS[1], score, id)
    if seen > 0 and redis.call('ZRANGE', KEYS[1], seen - 1, seen - 1)[1] == id then
      seen = seen - 1
    end
    last = math.min(last, seen)
  end
  return first, last
end

local function need(id)
  return redis.call('HGET', P .. 'entries', id) or error('audit entry ' .. id .. ' is lost', 0)
end

if redis.call('ZCARD', P .. 'audit') ~= redis.call('HLEN', P .. 'entries') then
  error('a part of the audit log is lost', 0)
end
local out, position, looked = { '' }, ARGV[2], 0
local chunk = math.min(#f.checks == 0 and f.limit or 250, 250)
local first, last = stretch()
while last > first do
  local from = math.max(first, last - chunk)
  local members = redis.call('ZRANGE', KEYS[1], from, last - 1, 'WITHSCORES')
  for i = #members - 1, 1, -2 do
    if #out > 2 * f.limit or looked == f.most then
      out[1] = position
      return out
    end
    local id, text = members[i], need(members[i])
    position, looked = members[i + 1] .. ' ' .. id, looked + (#f.checks == 0 and 0 or 1)
    if passes(text) then
      out[#out + 1] = id
      out[#out + 1] = text
    end
  end
  last = from
end
return out
