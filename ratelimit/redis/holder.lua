-- What the ledger stores of a holder, and what time, spending and sessions do to
-- it: the part that lease.lua begins with, after marker.lua.
--
-- Times are microseconds, counts are units of cost: whole numbers below 2^53, up
-- to which Lua's are exact. None is made text: tostring keeps 14 digits.

-- Before Redis 7 a script that has read the clock may write only after this.
redis.replicate_commands()

local FORMAT = 2       -- of the stored values
local CHARGES = 64     -- kept for one limit; above, neighbours are merged
local CLOSED = 32      -- ended sessions of a calendar quota that can still be corrected
local SLACK = 1000     -- ms that a value outlives its last charge
local UNBOUNDED = 2 ^ 53
local min, max, floor, insert, remove = math.min, math.max, math.floor, table.insert, table.remove

-- ============================================================= What is stored
-- A holder is {FORMAT, hwm, budgets, sessions, rules, series}, packed. hwm is the
-- latest time a change was decided at: the clock may be set back, the ledger's
-- time is not. rules is the number of the newest policy that asked.
local HWM, BUDGETS, SESSIONS, RULES, CORRECTIONS = 2, 3, 4, 5, 6
-- A budget is what was spent of one limit: {name, per, spent, charges, quota}, and
-- for a calendar quota the present period's end, that of the next, and closed.
-- per is 0 for a calendar quota, -1 for requests in flight, which are not charged.
-- charges is flat, {until, count, until, count …} in the order of until: count
-- units are held until then. spent is the sum of the counts. The quota comes with
-- the ask; it is kept for those who go by an older policy. closed is flat too, {id,
-- acked, rest, until …}: sessions that ended without a last word, and were charged
-- their rest.
local NAME, PER, SPENT, LIST, QUOTA, END, NEXT, ENDED = 1, 2, 3, 4, 5, 6, 7, 8
-- A session is a lease: {id, granted, acked, exp}, in the order of exp. Of the
-- granted units, acked were reported as spent and are charges; the others may
-- be spent until exp. Both only grow: lost and repeated messages change nothing.
local ID, GIVEN, ACKED, EXP = 1, 2, 3, 4
-- A correction is {session, reserved, actual, until}: how far a series has come.
local RESERVED, ACTUAL, UNTIL = 2, 3, 4

local function left(s) return s[GIVEN] - s[ACKED] end

-- leased is what all sessions of a holder may still spend.
local function leased(h)
  local sum = 0
  for _, s in ipairs(h[SESSIONS]) do sum = sum + left(s) end
  return sum
end

-- load reads a holder; nil if what is stored is not one.
local function load(key)
  local raw = redis.pcall('GET', key)
  if not raw then return {FORMAT, 0, {}, {}, 0, {}}, false end
  if type(raw) ~= 'string' then return nil end -- an error: another type of value
  local ok, h = pcall(cmsgpack.unpack, raw)
  if ok and type(h) == 'table' and h[1] == FORMAT and type(h[HWM]) == 'number'
    and type(h[BUDGETS]) == 'table' and type(h[SESSIONS]) == 'table' and type(h[RULES]) == 'number'
    and h[HWM] >= 0 and h[HWM] < UNBOUNDED and h[RULES] >= 0 and h[RULES] <= UNBOUNDED then
    h[CORRECTIONS] = h[CORRECTIONS] or {}
    return h, true
  end
end

-- ==================================================================== Charges

-- charge holds count units of b until the given time, which lies ahead.
local function charge(b, ends, count)
  local list = b[LIST]
  b[SPENT] = b[SPENT] + count
  local i = #list - 1
  while i > 0 and list[i] > ends do i = i - 2 end
  if i > 0 and list[i] == ends then
    list[i + 1] = list[i + 1] + count
    return
  end
  insert(list, i + 2, ends)
  insert(list, i + 3, count)
  if #list <= 2 * CHARGES then return end
  -- Too many: the one whose delay costs least, in units × time, moves into the
  -- next later one. Never into an earlier one: that would end it too soon.
  local best, least, at, held = 1, nil, list[1], list[2]
  for k = 3, #list - 1, 2 do
    local cost = held * (list[k] - at)
    if not least or cost < least then best, least = k - 2, cost end
    at, held = list[k], list[k + 1]
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
  local ended = b[ENDED]
  for i = ended and #ended or 0, 4, -4 do
    if ended[i] <= now then
      for _ = 1, 4 do remove(ended, i - 3) end
    end
  end
end

-- till is when the charge of units ends that were spent at last, or may have been.
local function till(b, last)
  if b[PER] > 0 then return last + b[PER] end
  if b[PER] < 0 then return last end
  return last <= b[END] and b[END] or b[NEXT]
end

-- refund takes back up to n units of charges that were to end at from or later,
-- the earliest first, but none that ends after last.
local function refund(b, from, last, n)
  local list, i = b[LIST], 1
  while list[i] and list[i] <= last and n > 0 do
    local back = list[i] >= from and min(n, list[i + 1]) or 0
    list[i + 1], b[SPENT], n = list[i + 1] - back, b[SPENT] - back, n - back
    if list[i + 1] == 0 then
      remove(list, i)
      remove(list, i)
    else
      i = i + 2
    end
  end
end

-- close remembers a session that was charged to the last unit.
local function close(b, s, ends)
  local ended = b[ENDED]
  if #ended == 4 * CLOSED then
    for _ = 1, 4 do remove(ended, 1) end
  end
  for _, v in ipairs({s[ID], s[ACKED], left(s), ends}) do insert(ended, v) end
end

-- reopen takes in the last word of a session that ended without it, once: what it
-- did not spend is returned.
local function reopen(h, id, spent)
  for _, b in ipairs(h[BUDGETS]) do
    local ended = b[ENDED] or {}
    for i = 1, #ended, 4 do
      if ended[i] == id then
        local acked, rest, ends = ended[i + 1], ended[i + 2], ended[i + 3]
        for _ = 1, 4 do remove(ended, i) end
        refund(b, ends, UNBOUNDED, rest - min(rest, max(0, spent - acked)))
        h.changed = true
        break
      end
    end
  end
end

-- spend charges units of a session that were spent at last, or may have been, to
-- all limits of the holder, asked about or not: it was granted against them all.
local function spend(h, now, last, count)
  h.changed = true
  for _, b in ipairs(h[BUDGETS]) do
    local ends = till(b, last)
    if ends > now then charge(b, ends, count) end
  end
end

-- advance brings a holder to the present. Charges that have ended go; a session
-- past its expiry is charged as if all of it had been spent at that moment.
local function advance(h, now)
  h[HWM] = now
  for _, b in ipairs(h[BUDGETS]) do drop(b, now) end
  local sessions, series = h[SESSIONS], h[CORRECTIONS]
  while sessions[1] and sessions[1][EXP] <= now do
    local s = remove(sessions, 1)
    if left(s) > 0 then
      spend(h, now, s[EXP], left(s))
      for _, b in ipairs(h[BUDGETS]) do
        if b[PER] == 0 and till(b, s[EXP]) > now then close(b, s, till(b, s[EXP])) end
      end
    end
  end
  while series[1] and series[1][UNTIL] <= now do remove(series, 1) end
end

-- empty says that nothing is charged, nor need be remembered: a correction that
-- returned all there was might come again.
local function empty(h)
  if h[SESSIONS][1] or h[CORRECTIONS][1] then return false end
  for _, b in ipairs(h[BUDGETS]) do
    if b[LIST][1] then return false end
  end
  return true
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

-- hold changes how long a budget holds what is charged. A window that has
-- changed moves the end of every charge: a charge ends one window after its units
-- may have been admitted. What the former window let go is not brought back. Of
-- charges in a calendar period nobody knows when they were made: they count as
-- made now, or in the period that is now.
local function hold(b, per, ends, after, now)
  local function move(at)
    if b[PER] > 0 and per > 0 then return at + per - b[PER] end
    if per > 0 then return now + per end
    if b[PER] > 0 or b[END] <= now or at <= b[END] then return ends end
    return after
  end
  local list, moved, ended = b[LIST], {}, b[ENDED]
  for i = 1, #list, 2 do
    local at, n = move(list[i]), #moved
    if moved[n - 1] == at then
      moved[n] = moved[n] + list[i + 1]
    else
      moved[n + 1], moved[n + 2] = at, list[i + 1]
    end
  end
  for i = 4, ended and #ended or 0, 4 do ended[i] = move(ended[i]) end
  b[PER], b[LIST] = per, moved
  if per == 0 then
    b[END], b[NEXT], b[ENDED] = ends, after, ended or {}
  else
    b[END], b[NEXT], b[ENDED] = nil, nil, nil
  end
end

local function find(h, name)
  for _, b in ipairs(h[BUDGETS]) do
    if b[NAME] == name then return b end
  end
end

-- budget finds the budget of a limit, whose terms it sets, or makes it.
local function budget(h, name, per, ends, after, now)
  local b = find(h, name)
  if not b then
    b = {name, per, 0, {}, 0}
    if per == 0 then b[END], b[NEXT], b[ENDED] = ends, after, {} end
    insert(h[BUDGETS], b)
    h.changed = true
  elseif b[PER] ~= per or b[END] ~= (per == 0 and ends or nil) then
    hold(b, per, ends, after, now)
    drop(b, now)
    h.changed = true
  end
  if per == 0 and b[NEXT] ~= after then b[NEXT], h.changed = after, true end
  return b
end

-- freed is when need more units are free than now, nil if never: a walk over
-- charges and sessions in the order of their end.
local function freed(p, need)
  local list, sessions, b = p.budget[LIST], p.holder[SESSIONS], p.budget
  local i, j, at = 1, 1, 0
  while need > 0 do
    local s = sessions[j]
    if list[i] and not (s and till(b, s[EXP]) < list[i]) then
      at, need, i = list[i], need - list[i + 1], i + 2
    elseif s then
      if left(s) > 0 then at, need = till(b, s[EXP]), need - left(s) end
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
