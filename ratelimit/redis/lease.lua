-- One ask, decided in one step over all its limits: the ledger of docs/limits.md.
--
-- KEYS[1]   the stop mark of the key
-- KEYS[2..] one value for each budget holder; one organization's, so in one slot
-- ARGV[1]   the numbers of the ask, then four of each limit; see "The ask"
-- ARGV[2]   session, ARGV[3] next session; '' is none
-- ARGV[4..] the names of the limits
-- Reply     status, taken, leased, ttl, now, version, others hold; then of each
--           limit remaining, next unit, retry after (0 not violated, -1 never fits)
--
-- Times are microseconds, counts are units of cost: whole numbers below 2^53, up
-- to which Lua's are exact. None is made text here: tostring keeps 14 digits.
-- Everything is decided first and written last, one SET for each holder that
-- changed, so that an error on the way leaves all as it was.

-- Before Redis 7 a script that has read the clock may write only after this.
redis.replicate_commands()

local DENIED, GRANTED, EXPIRED, STOPPED = 0, 1, 2, 3
local FORMAT = 1       -- of the stored values
local CHARGES = 64     -- kept for one limit; above, neighbours are merged
local SLACK = 1000     -- ms that a value outlives its last charge
local UNBOUNDED = 2 ^ 53
local min, max, floor, insert, remove = math.min, math.max, math.floor, table.insert, table.remove

-- ============================================================= What is stored
-- A holder is {FORMAT, hwm, budgets, sessions}, packed. hwm is the latest time
-- a change was decided at: the clock may be set back, the ledger's time is not.
local HWM, BUDGETS, SESSIONS = 2, 3, 4
-- A budget is what was spent of one limit: {name, per, spent, charges}. charges
-- is flat, {until, count, until, count …} in the order of until: count units are
-- held until then. spent is the sum of the counts. The quota comes with the ask.
local NAME, PER, SPENT, LIST = 1, 2, 3, 4
-- A session is a lease: {id, granted, acked, exp}, in the order of exp. Of the
-- granted units, acked were reported as spent and are charges; the others may
-- be spent until exp. Both only grow: lost and repeated messages change nothing.
local ID, GIVEN, ACKED, EXP = 1, 2, 3, 4

local function left(s) return s[GIVEN] - s[ACKED] end

-- load reads a holder; nil if what is stored is not one.
local function load(key)
  local raw = redis.pcall('GET', key)
  if not raw then return {FORMAT, 0, {}, {}}, false end
  if type(raw) ~= 'string' then return nil end -- an error: another type of value
  local ok, h = pcall(cmsgpack.unpack, raw)
  if ok and type(h) == 'table' and h[1] == FORMAT and type(h[HWM]) == 'number'
    and type(h[BUDGETS]) == 'table' and type(h[SESSIONS]) == 'table' then
    return h, true
  end
end

-- ==================================================================== Charges

-- charge holds count units of b until the given time, which lies ahead.
local function charge(b, till, count)
  local list = b[LIST]
  b[SPENT] = b[SPENT] + count
  local i = #list - 1
  while i > 0 and list[i] > till do i = i - 2 end
  if i > 0 and list[i] == till then
    list[i + 1] = list[i + 1] + count
    return
  end
  insert(list, i + 2, till)
  insert(list, i + 3, count)
  if #list <= 2 * CHARGES then return end
  -- Too many: the one whose delay costs least, in units × time, moves into the
  -- next later one. Never into an earlier one: that would end it too soon.
  local best, least, ends, held = 1, nil, list[1], list[2]
  for k = 3, #list - 1, 2 do
    local cost = held * (list[k] - ends)
    if not least or cost < least then best, least = k - 2, cost end
    ends, held = list[k], list[k + 1]
  end
  list[best + 3] = list[best + 3] + list[best + 1]
  remove(list, best)
  remove(list, best)
end

-- drop forgets the charges of b that have ended.
local function drop(b, now)
  local list, n = b[LIST], 0
  while list[n + 1] and list[n + 1] <= now do
    b[SPENT] = b[SPENT] - list[n + 2]
    n = n + 2
  end
  if n > 0 then b[LIST] = {unpack(list, n + 1)} end
end

-- spend charges units of a session that were spent at last, or may have been, to
-- all limits of the holder, asked about or not: it was granted against them all.
local function spend(h, now, last, count)
  h.changed = true
  for _, b in ipairs(h[BUDGETS]) do
    if last + b[PER] > now then charge(b, last + b[PER], count) end
  end
end

-- advance brings a holder to the present. Charges that have ended go; a session
-- past its expiry is charged as if all of it had been spent at that moment.
local function advance(h, now)
  h[HWM] = now
  for _, b in ipairs(h[BUDGETS]) do drop(b, now) end
  local sessions = h[SESSIONS]
  while sessions[1] and sessions[1][EXP] <= now do
    local s = remove(sessions, 1)
    if left(s) > 0 then spend(h, now, s[EXP], left(s)) end
  end
end

-- tidy forgets limits that nothing is charged to and that are not asked about;
-- not while there are sessions, which will be charged to those present. What is
-- left out of a value here and not written needs no writing: it would be left out
-- again. So a refusal writes nothing as a rule, however often it is repeated.
local function tidy(h, asked)
  if h[SESSIONS][1] then return end
  for i = #h[BUDGETS], 1, -1 do
    local b = h[BUDGETS][i]
    if not b[LIST][1] and not asked[b[NAME]] then remove(h[BUDGETS], i) end
  end
end

-- budget finds the budget of a limit, or makes it. A window that has changed
-- moves the end of every charge: a charge ends one window after its units may
-- have been admitted. What the former window let go is not brought back.
local function budget(h, name, per, now)
  for _, b in ipairs(h[BUDGETS]) do
    if b[NAME] == name then
      if b[PER] ~= per then
        local list = b[LIST]
        for i = 1, #list, 2 do list[i] = list[i] + per - b[PER] end
        b[PER], h.changed = per, true
        drop(b, now)
      end
      return b
    end
  end
  local b = {name, per, 0, {}}
  insert(h[BUDGETS], b)
  h.changed = true
  return b
end

-- freed is when need more units are free than now, nil if never: a walk over
-- charges and sessions in the order of their end.
local function freed(p, need)
  local list, sessions, per = p.budget[LIST], p.holder[SESSIONS], p.budget[PER]
  local i, j, at = 1, 1, nil
  while need > 0 do
    local s = sessions[j]
    if list[i] and not (s and s[EXP] + per < list[i]) then
      at, need, i = list[i], need - list[i + 1], i + 2
    elseif s then
      if left(s) > 0 then at, need = s[EXP] + per, need - left(s) end
      j = j + 1
    else
      return nil
    end
  end
  return at
end

-- =================================================================== Sessions

local function lookup(h, id)
  for i, s in ipairs(h[SESSIONS]) do
    if s[ID] == id then return s, i end
  end
end

-- report charges what a session says to have spent so far. One that comes twice
-- or late has nothing new. granted never falls below what was spent: a negative
-- rest would be a gift to the others.
local function report(h, s, now, spent)
  local d = spent - s[ACKED]
  if d <= 0 then return end
  spend(h, now, now, d)
  s[ACKED] = spent
  s[GIVEN] = max(s[GIVEN], spent)
end

-- give adds n units to a session, opening it if need be, and lets it live for
-- ttl at least. It returns the expiry.
local function give(h, id, n, now, ttl)
  local sessions = h[SESSIONS]
  local s, i = lookup(h, id)
  if s then remove(sessions, i) else s = {id, 0, 0, 0} end
  s[GIVEN], s[EXP] = s[GIVEN] + n, max(s[EXP], now + ttl)
  i = #sessions
  while i > 0 and sessions[i][EXP] > s[EXP] do i = i - 1 end
  insert(sessions, i + 1, s)
  h.changed = true
  return s[EXP]
end

-- ==================================================================== The ask
-- late is D: until how long after now a taken unit may be admitted.
local mode, version, spent, seen, take, want, cost, late, at = struct.unpack('<i8i8i8i8i8i8i8i8', ARGV[1])
local peek, release = mode == 1, mode == 2
local session, successor = ARGV[2], ARGV[3]

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

-- A key that was changed since the asker read it gets nothing.
local mark = redis.pcall('GET', KEYS[1])
if mark then
  local stopped = type(mark) == 'string' and tonumber(mark)
  if not stopped then return redis.error_reply('DAMAGED ' .. KEYS[1]) end
  if stopped > version then return {STOPPED, 0, 0, 0, clock, stopped, 0} end
end

-- All holders move to one present, never back.
local holders, now = {}, clock
for i = 2, #KEYS do
  local h, exists = load(KEYS[i])
  if not h then return redis.error_reply('DAMAGED ' .. KEYS[i]) end
  h.key, h.exists, h.asked = KEYS[i], exists, {}
  holders[i - 1] = h
  now = max(now, h[HWM])
end
-- Of each limit: which holder it is of, quota, window, and τ, how long a lease
-- of it may live.
local places = {}
for k = 1, #ARGV - 3 do
  local p = {}
  p.of, p.quota, p.per, p.tau, at = struct.unpack('<i8i8i8i8', ARGV[1], at)
  p.holder, p.name = holders[p.of], ARGV[k + 3]
  p.holder.asked[p.name] = true
  places[k] = p
end
for _, h in ipairs(holders) do
  advance(h, now)
  tidy(h, h.asked)
end
for _, p in ipairs(places) do p.budget = budget(p.holder, p.name, p.per, now) end

-- measure fills in what every limit has left, negative once a quota was lowered,
-- and returns the least of it.
local function measure()
  local room = UNBOUNDED
  for _, p in ipairs(places) do
    p.avail = p.quota - p.budget[SPENT]
    for _, s in ipairs(p.holder[SESSIONS]) do p.avail = p.avail - left(s) end
    room = min(room, p.avail)
  end
  return room
end

-- find looks a session up. It is the same only if every holder knows it with as
-- much granted: a limit that a new policy brought was not asked before.
local function find(id)
  local granted, found, same = nil, false, true
  for _, h in ipairs(holders) do
    local s = lookup(h, id)
    if not s then
      same = false
    else
      if granted and granted ~= s[GIVEN] then same = false end
      granted, found = s[GIVEN], true
    end
  end
  return granted, found, same and found
end

-- resume takes in the report and says which session may be leased to (nil: none),
-- whether it is there already, and whether the one asked about is gone. One that
-- is not known, or known with less than its replica was given, is never taken up
-- again: the replica may hold units of it that were charged and let go. Its
-- successor is opened instead.
local function resume()
  if session == '' then return nil, false, false end
  local granted, found, same = find(session)
  if same and seen <= granted then
    for _, h in ipairs(holders) do report(h, lookup(h, session), now, spent) end
    return session, true, false
  end
  if not found and spent == 0 and seen == 0 and not release then return session, false, false end
  if successor == '' then return nil, false, true end
  granted, found, same = find(successor)
  if found ~= same then return nil, false, true end
  return successor, same, true
end

-- book charges as many of the waiting requests as fit all limits, until a window
-- after the last moment at which they can be admitted.
local function book(room)
  if room < cost or take < cost then return 0 end
  local n = min(take, room)
  n = n - n % cost
  for _, p in ipairs(places) do
    charge(p.budget, now + late + p.per, n)
    p.holder.changed = true
    p.avail = p.avail - n
  end
  return n
end

-- lease gives a session up to want units: no more than a twentieth of any quota
-- and an equal share of what is left, but one request's cost in any case; all
-- limits or none. It returns what was given, all that was ever, and for how
-- long it may be spent; 0: the deadline stays.
local function lease(id, known)
  local n, ttl = want, UNBOUNDED
  for _, p in ipairs(places) do
    local active = #p.holder[SESSIONS] + (known and 0 or 1)
    if p.avail < cost then n = 0 end
    n = min(n, max(cost, floor(p.quota / 20)), max(cost, floor(p.avail / active)))
    ttl = min(ttl, p.tau)
  end
  local total, unspent = 0, false
  if known then
    for _, h in ipairs(holders) do
      local s = lookup(h, id)
      total, unspent = s[GIVEN], unspent or left(s) > 0
    end
  end
  -- Without units a session is not opened, and its life not prolonged.
  if n == 0 and not unspent then return 0, total, 0 end
  local exp = UNBOUNDED
  for _, h in ipairs(holders) do exp = min(exp, give(h, id, n, now, ttl)) end
  for _, p in ipairs(places) do p.avail = p.avail - n end
  return n, total + n, exp - now
end

-- ================================================================ The decision
local status, taken, leased, ttl, short = GRANTED, 0, 0, 0, false
local id, known, expired
if peek then
  short = measure() < cost
  if short then status = DENIED end
else
  id, known, expired = resume()
  if known and release then
    leased = lookup(holders[1], id)[GIVEN]
    for _, h in ipairs(holders) do
      local _, i = lookup(h, id)
      remove(h[SESSIONS], i)
      h.changed = true
    end
    measure()
  else
    local n = 0
    taken = book(measure())
    if id then n, leased, ttl = lease(id, known) end
    short = taken < take or (want > 0 and n == 0)
    if expired then
      status = EXPIRED
    elseif taken == 0 and n == 0 and take + want > 0 then
      status = DENIED
    end
  end
end

local reply = {status, taken, leased, ttl, now, 0, 0}
for _, p in ipairs(places) do
  local remaining, next_unit, retry = max(0, p.avail), 0, 0
  if p.avail < p.quota then next_unit = freed(p, remaining + 1 - p.avail) - now end
  if short and p.avail < cost then
    local fits = freed(p, cost - p.avail)
    retry = fits and fits - now or -1
  end
  insert(reply, remaining)
  insert(reply, next_unit)
  insert(reply, retry)
end
for _, h in ipairs(holders) do
  for _, s in ipairs(h[SESSIONS]) do
    if s[ID] ~= id and left(s) > 0 then reply[7] = 1 end
  end
end
if peek then return reply end

-- A value lives until its last charge has ended. The time to live counts from
-- the clock, not from now, which the clock may be behind.
for _, h in ipairs(holders) do
  local sessions, last, longest = h[SESSIONS], 0, 0
  for _, b in ipairs(h[BUDGETS]) do
    last, longest = max(last, b[LIST][#b[LIST] - 1] or 0), max(longest, b[PER])
  end
  if sessions[1] then last = max(last, sessions[#sessions][EXP] + longest) end
  if last == 0 then
    if h.exists then redis.call('DEL', h.key) end
  elseif h.changed then
    local value = cmsgpack.pack({FORMAT, h[HWM], h[BUDGETS], sessions})
    redis.call('SET', h.key, value, 'PX', floor((last - clock) / 1000) + SLACK)
  end
end
return reply
