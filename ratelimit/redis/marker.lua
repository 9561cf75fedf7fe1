-- What this Redis is, and whether it may have lost what was spent: the part that
-- lease.lua and mark.lua begin with.
--
-- Each hash tag has a marker: "<run_id> <lostAt>". run_id, of 40 digits, is that of
-- the process that decided last; lostAt is when that tag may have lost something,
-- in µs, 0 if it never did. A marker has no end: one that is missing was lost, with
-- what stood beside it.

-- info is one field of INFO; '' where the server does not tell.
local function info(section, field)
  local text = redis.pcall('INFO', section)
  if type(text) ~= 'string' then return '' end
  local _, at = string.find(text, '\n' .. field .. ':', 1, true)
  if not at then return '' end
  return string.sub(text, at + 1, string.find(text, '\r', at, true) - 1)
end

-- marked is lostAt of the marker at a key, nil if something else is stored there.
-- fresh is what one that is missing counts as; quiet says to write nothing.
local function marked(key, fresh, now, quiet)
  local run, raw = info('server', 'run_id'), redis.pcall('GET', key)
  if type(raw) == 'string' and #run == 40 and string.sub(raw, 1, 40) == run then
    return tonumber(string.sub(raw, 42))
  end
  local lost = fresh
  if raw then
    if type(raw) ~= 'string' then return nil end -- an error: another type of value
    local was, at = string.match(raw, '^(%x*) (%d+)$')
    if not at then return nil end
    lost = tonumber(at)
    if run == was then return lost end -- neither is known
    -- Another process has taken over. One that was started with an append-only file
    -- has what the former one had; a replica that was promoted, which has a second
    -- history, may lack the end of it, and one without the file has what the last
    -- snapshot had.
    if info('persistence', 'aof_enabled') ~= '1' or info('replication', 'master_replid2') ~= string.rep('0', 40) then
      lost = now
    end
  end
  if not quiet then
    redis.call('SET', key, run .. ' ' .. string.format('%.0f', lost))
  end
  return lost
end
