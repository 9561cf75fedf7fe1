-- What several scripts share; Go puts it before them.

local P = 'kg:{kg}:'

-- integer prints what tostring would print as 1.7e+15.
local function integer(n)
  return string.format('%.0f', n)
end

local function latest(a, b)
  return a and b and math.max(a, b) or a or b
end

-- When keys were used is no part of their records: it changes more often, and
-- without a new version. The set "used" has each key's last activity, which is its
-- last use or, before the first, its creation. Where the two are the same instant,
-- and for single secrets, uses are lines of the key's field of the hash "uses":
-- a secret's hash, or '-' for the key as a whole, and µs. Few keys have any.
local function split(lines)
  local uses = {}
  for what, at in string.gmatch(lines or '', '(%S+) (%S+)\n') do
    uses[what] = tonumber(at)
  end
  return uses
end

local function join(uses)
  local lines = {}
  for what, at in pairs(uses) do
    lines[#lines + 1] = what .. ' ' .. integer(at) .. '\n'
  end
  return table.concat(lines)
end

-- last_use is when a key was used last, nil for never. Its record may know of a use
-- too: one that a change wrote.
local function last_use(key, active, uses)
  local last = latest(key.w, uses['-'])
  if active and active ~= (key.c or 0) then
    last = latest(last, active)
  end
  return last
end
