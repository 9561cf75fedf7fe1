-- One ask, decided in one step over all its limits: the ledger of docs/limits.md.
--
-- KEYS[1]   the stop mark of the key, KEYS[2] the marker of the hash tag
-- KEYS[3..] one value for each budget holder; one organization's, so in one slot
-- ARGV[1]   the numbers of the ask, then those of each limit; see "The ask"
-- ARGV[2]   session, ARGV[3] next session; '' is none
-- ARGV[4..] the names of the limits
-- Reply     status, taken, leased, ttl, now, version, others hold, admit; then of
--           each limit quota, remaining, next unit, retry after (0 not violated)
--
-- Everything is decided first and written last, one SET for each holder that
-- changed, so that an error on the way leaves all as it was. Only the marker is
-- written at once.

local DENIED, GRANTED, EXPIRED, STOPPED, STALE, LOST = 0, 1, 2, 3, 4, 5
local LEASE, PEEK, RELEASE, SETTLE = 0, 1, 2, 3
local SERIES = 32      -- of corrections that a holder remembers
local SETTLE_WITHIN = 300000000 -- µs after its booking a charge can be corrected downward
local MAX_LEASE = 2000000 -- µs, of a window
local LONGEST = 33 * 86400000000 -- µs, more than any calendar period

-- ==================================================================== The ask
-- late is D: until how long after now a taken unit may be admitted. when is that
-- of the charges that are settled.
local mode, version, rules, spent, seen, take, want, cost, late, open, stored, when, at =
  struct.unpack('<i8i8i8i8i8i8i8i8i8i8i8i8', ARGV[1])
local session, successor = ARGV[2], ARGV[3]

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]

-- A key that was changed since the asker read it gets nothing, and may give back.
local mark = redis.pcall('GET', KEYS[1])
if mark and mode ~= SETTLE and mode ~= RELEASE then
  local stopped = type(mark) == 'string' and tonumber(mark)
  if not stopped then return redis.error_reply('DAMAGED ' .. KEYS[1]) end
  if stopped > version then return {STOPPED, 0, 0, 0, clock, stopped, 0, 0} end
end

-- All holders move to one present, never back. Of what is over, nobody need know
-- by which policy it was.
local holders, now, newest = {}, clock, 0
for i = 3, #KEYS do
  local h, exists = load(KEYS[i])
  if not h then return redis.error_reply('DAMAGED ' .. KEYS[i]) end
  h.key, h.exists, h.asked = KEYS[i], exists, {}
  holders[i - 2] = h
  now = max(now, h[HWM])
end
for _, h in ipairs(holders) do
  advance(h, now)
  if empty(h) then h[RULES] = 0 end
  newest = max(newest, h[RULES])
end
if newest > rules and stored == 0 and mode ~= SETTLE and mode ~= RELEASE then
  return {STALE, 0, 0, 0, now, newest, 0, 0}
end
local lost_at = marked(KEYS[2], now, now, mode == PEEK)
if not lost_at then return redis.error_reply('DAMAGED ' .. KEYS[2]) end

-- Of each limit: which holder it is of, quota, per, and τ, how long a lease of it
-- may live; of a calendar quota also the present period's beginning and end and
-- the end of the next, of which one holds now. begin is that one's, later than now
-- where it is not known.
local places = {}
for k = 1, #ARGV - 3 do
  local p = {}
  p.of, p.quota, p.per, p.tau, at = struct.unpack('<i8i8i8i8', ARGV[1], at)
  p.holder, p.name = holders[p.of], ARGV[k + 3]
  p.holder.asked[p.name] = true
  if p.per == 0 then
    local a, b, c
    a, b, c, at = struct.unpack('<i8i8i8', ARGV[1], at)
    if now < a then
      p.begin, p.ends, p.after = a, a, b
    elseif now < b then
      p.begin, p.ends, p.after = a, b, c
    elseif now < c then
      p.begin, p.ends, p.after = b, c, c + LONGEST
    else
      return redis.error_reply('PERIOD ' .. p.name)
    end
  end
  places[k] = p
end
for _, h in ipairs(holders) do tidy(h, h.asked) end
-- The terms are the ask's, or those that a newer policy has brought, which the ask
-- then accepts, unless nothing depends on them.
local lost = false
for _, p in ipairs(places) do
  local b = find(p.holder, p.name)
  if not b or rules >= p.holder[RULES] or not p.holder[SESSIONS][1] and not b[LIST][1] or b[PER] == 0 and b[END] <= now then
    b = budget(p.holder, p.name, p.per, p.ends, p.after, now)
    if b[QUOTA] ~= p.quota then b[QUOTA], p.holder.changed = p.quota, true end
  end
  p.budget, p.quota = b, b[QUOTA]
  if b[PER] > 0 then p.tau = min(floor(b[PER] / 5), MAX_LEASE) end
  if b[PER] == 0 then
    p.tau, late = min(p.tau, b[END] - now), min(late, b[END] - now)
  elseif lost_at > 0 and open == 0 then
    p.held = lost_at + max(0, b[PER]) + p.tau
    if p.held > now then lost = true else p.held = nil end
  end
end
for _, h in ipairs(holders) do
  if rules > h[RULES] then h[RULES], h.changed = rules, true end
  if leased(h) < 0 then return redis.error_reply('DAMAGED ' .. h.key) end
end
for _, p in ipairs(places) do
  if p.budget[SPENT] < 0 then return redis.error_reply('DAMAGED ' .. p.holder.key) end
end

-- measure fills in what every limit has left, negative once a quota was lowered,
-- and returns the least of it.
local function measure()
  local room = UNBOUNDED
  for _, p in ipairs(places) do
    p.avail = p.quota - p.budget[SPENT] - leased(p.holder)
    room = min(room, p.avail)
  end
  return room
end

-- known looks a session up. It is the same only if every holder knows it with as
-- much granted: a limit that a new policy brought was not asked before.
local function known(id)
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
-- successor is opened instead. The last word of one that ended is taken in where
-- its charge is still held.
local function resume()
  if session == '' then return nil, false, false end
  local granted, found, same = known(session)
  if same and seen <= granted then
    for _, h in ipairs(holders) do report(h, lookup(h, session), now, spent) end
    return session, true, false
  end
  if mode == RELEASE then
    for _, h in ipairs(holders) do reopen(h, session, spent) end
  elseif not found and spent == 0 and seen == 0 then
    return session, false, false
  end
  if successor == '' then return nil, false, true end
  granted, found, same = known(successor)
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
    charge(p.budget, till(p.budget, now + late), n)
    p.holder.changed = true
    p.avail = p.avail - n
  end
  return n
end

-- others counts the sessions of a holder but one that hold something.
local function others(h, id)
  local n = 0
  for _, s in ipairs(h[SESSIONS]) do
    if s[ID] ~= id and left(s) > 0 then n = n + 1 end
  end
  return n
end

-- lease gives a session up to want units: no more than a twentieth of any quota
-- and an equal share of what is left among all that hold something, but a hundredth
-- of the quota, if it is there, and one request's cost in any case; all limits or
-- none. Of requests in flight it is the share alone: they come back. It returns what
-- was given, all that was ever, and for how long it may be spent; 0: the deadline
-- stays.
local function lease(id, there)
  local n, ttl = want, UNBOUNDED
  for _, p in ipairs(places) do
    local active = 1 + others(p.holder, id)
    if p.avail < cost or lost then n = 0 end
    local share = max(cost, floor(p.avail / active))
    if p.budget[PER] >= 0 then
      share = min(max(share, min(p.avail, floor(p.quota / 100))), max(cost, floor(p.quota / 20)))
    end
    n = min(n, share)
    ttl = min(ttl, p.tau)
  end
  local total, unspent = 0, false
  if there then
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

-- correct brings a holder's charges to what a series of corrections says by now:
-- spent was reserved and take came of it. What is returned must be charged still,
-- and may not reach past what a session holds: these may be the very units.
local function correct(h)
  local c, at
  for i, held in ipairs(h[CORRECTIONS]) do
    if held[ID] == session then c, at = held, i end
  end
  if not c and #h[CORRECTIONS] == SERIES then return end
  c = c or {session, 0, 0, 0}
  if spent <= c[RESERVED] then return end -- repeated, or overtaken by a later one
  local back = spent - c[RESERVED] - (take - c[ACTUAL])
  for _, p in ipairs(places) do
    local b = p.budget
    if p.holder == h and back < 0 and till(b, now) > now then
      charge(b, till(b, now), -back)
    elseif p.holder == h and back > 0 and when + SETTLE_WITHIN > now and when <= now then
      local from, last = till(b, when), leased(h) > 0 and till(b, now) or UNBOUNDED
      if from > now and (b[PER] ~= 0 or p.begin and when >= p.begin) then refund(b, from, last, back) end
    end
  end
  if at then remove(h[CORRECTIONS], at) end
  insert(h[CORRECTIONS], {session, spent, take, now + SETTLE_WITHIN})
  h.changed = true
end

-- ================================================================ The decision
local status, taken, given, ttl, short = GRANTED, 0, 0, 0, false
local id, there, expired
if mode == PEEK then
  short = measure() < cost or lost
  if lost then status = LOST elseif short then status = DENIED end
elseif mode == SETTLE then
  for _, h in ipairs(holders) do
    local is = seen == 0
    for _, c in ipairs(h[CORRECTIONS]) do is = is or c[ID] == session end
    if not is then return {EXPIRED} end
  end
  for _, h in ipairs(holders) do correct(h) end
else
  id, there, expired = resume()
  if there and mode == RELEASE then
    given = lookup(holders[1], id)[GIVEN]
    for _, h in ipairs(holders) do
      local _, i = lookup(h, id)
      remove(h[SESSIONS], i)
      h.changed = true
    end
    measure()
  else
    local n, room = 0, measure()
    taken = book(lost and 0 or room)
    if id then n, given, ttl = lease(id, there) end
    short = taken < take or (want > 0 and n == 0)
    if expired then
      status = EXPIRED
    elseif lost and take + want > 0 then
      status = LOST
    elseif taken == 0 and n == 0 and take + want > 0 then
      status = DENIED
    end
  end
end

-- retry is how long it takes until one request of the ask's cost fits a limit. A
-- cost above the quota never does; it may as well be tried once per window.
local function retry(p)
  local b, fits = p.budget, freed(p, max(0, cost - p.avail))
  if fits then return max(fits, p.held or 0) - now end
  if b[PER] == 0 then return b[END] - now end
  return b[PER] > 0 and b[PER] or p.tau
end

local reply = {status, taken, given, ttl, now, 0, 0, late}
if mode ~= SETTLE then
  for _, p in ipairs(places) do
    local remaining, next_unit, wait = max(0, p.avail), 0, 0
    if p.avail < p.quota then next_unit = freed(p, remaining + 1 - p.avail) - now end
    if short and (p.avail < cost or p.held) then wait = retry(p) end
    for _, v in ipairs({p.quota, remaining, next_unit, wait}) do insert(reply, v) end
  end
  for _, h in ipairs(holders) do
    if others(h, id) > 0 then reply[7] = 1 end
  end
end
if mode == PEEK then return reply end

-- A value lives until its last charge has ended. The time to live counts from
-- the clock, not from now, which the clock may be behind.
for _, h in ipairs(holders) do
  local sessions, series, last = h[SESSIONS], h[CORRECTIONS], 0
  for _, b in ipairs(h[BUDGETS]) do
    last = max(last, b[LIST][#b[LIST] - 1] or 0)
    if sessions[1] then last = max(last, till(b, sessions[#sessions][EXP])) end
  end
  if series[1] then last = max(last, series[#series][UNTIL]) end
  if last == 0 then
    if h.exists then redis.call('DEL', h.key) end
  elseif h.changed then
    local value = cmsgpack.pack({FORMAT, h[HWM], h[BUDGETS], sessions, h[RULES], series[1] and series or nil})
    redis.call('SET', h.key, value, 'PX', floor((last - clock) / 1000) + SLACK)
  end
end
return reply
