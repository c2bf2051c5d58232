#!lua flags=allow-oom
-- lease: FREE -> HELD for up to `limit` deferrals, the most urgent first, none that this reviewer holds, answered or
-- skipped.
--   ARGV[5] reviewer   [6] limit   [7] how long a lease is, ms   [8] 'blind' or 'assisted'
--   [9] where in the index to begin   [10] how many entries to look at, at most   [11..] a nonce for each lease
-- -> {'ok', where to go on or -1, one text for each lease: JSON of [id, slot, generation, nonce, until, how, field of
--           their draft or ''], end of line, the record as JSON, ...}; a slot of -1 says that the record is broken and
--           was set aside
local reviewer, limit, length = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
-- Entries that are read at once: a few more than are wanted, then as many as it takes to get by what is not for them.
local few, many, LAPSE_MAX = limit + 8, 64, 16

-- Each with its record as it stands, which is not worth remembering.
local function told(reply)
  for at = 3, #reply do
    reply[at] = reply[at] .. '\n' .. (described(string.match(reply[at], '^%["(%w+)"')) or '')
  end
  return reply
end

local kept = replay()
if kept then
  return told(kept)
end
local time = clock()
-- The reaper does this too; work does not stop while it is away.
lapse(time, LAPSE_MAX)

-- Out of the way of all others, for somebody to look at: there is no record, or not enough of it to lease.
local function set_aside(id)
  call('ZREM', K.free, id)
  call('ZADD', K.flagged, 0, id)
  return cjson.encode({ id, -1, 0, '', '0', 'broken', '' }), false
end

-- FREE -> HELD of a deferral's first FREE slot; nil where the reviewer is in another one or done with the deferral, or its
-- time is over.
local function take(id, nonce)
  local key = record(id)
  local slots, expire, before, order =
    slots_of(key, { 'state', 'holder', 'generation' }, 'expire_ms', 'x.' .. reviewer, 'order')
  if not (expire and order and slots[1]) then
    return set_aside(id)
  end
  if tonumber(expire) <= time or (before and string.match(before, '^%a+') ~= 'undone') then
    return nil
  end
  local found, free
  for number, slot in ipairs(slots) do
    if slot[1] == 'free' then
      found, free = found or number - 1, (free or 0) + 1
    elseif slot[2] == reviewer then
      return nil
    end
  end
  if not found then
    return nil
  end
  local field, till = 's' .. found, text(math.min(time + length, tonumber(expire)))
  local generation = tonumber(slots[found + 1][3] or 0) + 1
  call('HSET', key, field .. '.state', 'held', field .. '.holder', reviewer, field .. '.generation', generation,
    field .. '.nonce', nonce, field .. '.since', text(time), field .. '.until', till, field .. '.how', ARGV[8])
  call('ZADD', K.leases, till, id .. ':' .. found)
  call('HINCRBY', K.holding, id, 1)
  call('HINCRBY', K.holders, reviewer, 1)
  if free == 1 then
    call('ZREM', K.free, id)
    call('ZADD', K.held, order, id)
  end
  return cjson.encode({ id, found, generation, nonce, till, ARGV[8], draft_of(id, reviewer) }), free > 1
end

local reply = { 'ok', -1 }
local at, seen, chunk = tonumber(ARGV[9]), 0, few
while #reply - 2 < limit do
  local ids = call('ZRANGE', K.free, at, at + chunk - 1)
  for _, id in ipairs(ids) do
    local taken, stays
    if #reply - 2 < limit then
      taken, stays = take(id, ARGV[10 + #reply - 1])
    end
    reply[#reply + 1] = taken
    -- What left the index moved the rest up by one.
    if not taken or stays then
      at = at + 1
    end
  end
  seen = seen + #ids
  if #ids < chunk then
    -- Nothing taken is nothing to remember: a repeat may find something.
    return #reply > 2 and told(remember(reply)) or reply
  end
  if seen >= tonumber(ARGV[10]) then
    break
  end
  chunk = many
end
reply[2] = at
return #reply > 2 and told(remember(reply)) or reply
