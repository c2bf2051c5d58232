#!lua flags=allow-oom
-- lease: FREE -> HELD for up to `limit` deferrals of some tiers, the most urgent first, none that this reviewer holds,
-- answered or skipped, or is excluded from.
--   ARGV[5] reviewer   [6] limit   [7] how long a lease is, ms   [8] 'blind' or 'assisted': how the queue has it, and what
--   has no `how` of its own
--   [9] the tiers, each with where in its index to begin: '0:0 1:0'; after a ';' those to look through if these have
--   nothing   [10] how many entries to look at, at most   [11..] a nonce for each lease
-- -> {'ok', where to go on, as [9], or '' at the end, for each lease {JSON of [id, slot, generation, nonce, until, how,
--           field of their draft or ''], the record as JSON, the subject or '' where it is known here}, ...}; a slot of
--           -1 says that the record is broken and was set aside
local reviewer, limit, length = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
-- Entries that are read at once: a few more than are wanted, then as many as it takes to get by what is not for them.
local few, many, LAPSE_MAX = limit + 8, 64, 16
-- What is read of a record: what it says of this reviewer, too, and how it is reviewed. An item's own word is blind: where
-- all are, nobody needs to look for it.
local READ = { 'slots', 'expire_ms', 'x.' .. reviewer, 'order', 's0.state', 's0.holder', 's0.generation',
  ARGV[8] ~= 'blind' and 'how' or nil }

local kept = replay()
if kept then
  return told(kept, 3)
end
local time = clock()
-- The reaper does this too; work does not stop while it is away.
lapse(time, LAPSE_MAX)

-- Out of the way of all others, for somebody to look at: there is no record, or not enough of it to lease.
local function set_aside(id, index)
  call('ZREM', index, id)
  call('ZADD', K.flagged, 0, id)
  return cjson.encode({ id, -1, 0, '', '0', 'broken', '' }), false
end

-- FREE -> HELD of a deferral's first FREE slot; nil where the reviewer is in another one or done with the deferral, or its
-- time is over.
local function take(id, index, nonce)
  local key = record(id)
  local known = call('HMGET', key, unpack(READ))
  local count, expire, before, order, own = tonumber(known[1] or 0), known[2], known[3], known[4], known[8]
  if not (expire and order) or count == 0 then
    return set_aside(id, index)
  end
  if tonumber(expire) <= time or (before and string.match(before, '^%a+') ~= 'undone') then
    return nil
  end
  -- Nearly all have one slot.
  local slots = { { known[5] or 'free', known[6], known[7] } }
  if count > 1 then
    slots = slots_of(key, { 'state', 'holder', 'generation' })
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
  local generation, how = tonumber(slots[found + 1][3] or 0) + 1, own or ARGV[8]
  call('HSET', key, field .. '.state', 'held', field .. '.holder', reviewer, field .. '.generation', generation,
    field .. '.nonce', nonce, field .. '.since', text(time), field .. '.until', till, field .. '.how', how)
  call('ZADD', K.leases, till, id .. ':' .. found)
  call('ZADD', K.holds, 0, hold(reviewer, id))
  if free == 1 then
    call('ZREM', index, id)
    call('ZADD', K.held, order, id)
  end
  return cjson.encode({ id, found, generation, nonce, till, how, draft_of(id, reviewer) }), free > 1
end

local first, rest = string.match(ARGV[9], '^([^;]*);?(.*)$')
local tiers, step

local function begin(group)
  tiers = {}
  for tier, at in string.gmatch(group, '(%d):(%d+)') do
    tiers[#tiers + 1] = { name = tier, index = FREE[tier], at = tonumber(at), ids = {}, next = 1, more = true, chunk = few }
  end
  -- Scores are for comparing tiers.
  step = #tiers > 1 and 2 or 1
end
begin(first)

-- Marks those of a tier's entries that this reviewer holds or answered: cheaper than to look into the records of many.
local function mark(tier)
  local members = {}
  for at = 1, #tier.ids, step do
    members[#members + 1] = hold(reviewer, tier.ids[at])
  end
  for _, index in ipairs({ K.holds, K.answered }) do
    for number, score in ipairs(call('ZMSCORE', index, unpack(members))) do
      if score then
        tier.theirs[tier.ids[(number - 1) * step + 1]] = true
      end
    end
  end
end

local function fill(tier)
  local from, to = tier.at, tier.at + tier.chunk - 1
  if step == 1 then
    tier.ids = call('ZRANGE', tier.index, from, to)
  else
    tier.ids = call('ZRANGE', tier.index, from, to, 'WITHSCORES')
  end
  tier.theirs = {}
  if tier.chunk == many and #tier.ids > 0 then
    mark(tier)
  end
  tier.next, tier.more, tier.chunk = 1, #tier.ids == tier.chunk * step, many
end

-- The tier whose next entry is the most urgent; nil at the end of all.
local function following()
  local best, order
  for _, tier in ipairs(tiers) do
    if tier.next > #tier.ids and tier.more then
      fill(tier)
    end
    if tier.next <= #tier.ids then
      local other = step == 2 and tonumber(tier.ids[tier.next + 1])
      if not best or other < order then
        best, order = tier, other
      end
    end
  end
  return best
end

-- Nothing taken is nothing to remember: a repeat may find something.
local function done(reply)
  return #reply > 2 and told(remember(reply), 3) or reply
end

local reply, seen = { 'ok', '' }, 0
while #reply - 2 < limit do
  local tier = following()
  if not tier and #reply == 2 and rest ~= '' then
    begin(rest)
    rest, tier = '', following()
  end
  if not tier then
    return done(reply)
  end
  if seen >= tonumber(ARGV[10]) then
    break
  end
  local id = tier.ids[tier.next]
  local taken, stays
  if not tier.theirs[id] then
    taken, stays = take(id, tier.index, ARGV[10 + #reply - 1])
  end
  reply[#reply + 1] = taken
  -- What left the index moved the rest up by one.
  if not taken or stays then
    tier.at = tier.at + 1
  end
  tier.next, seen = tier.next + step, seen + 1
end
local on = {}
for _, tier in ipairs(tiers) do
  on[#on + 1] = tier.name .. ':' .. tier.at
end
reply[2] = table.concat(on, ' ') .. (rest ~= '' and ';' .. rest or '')
return done(reply)
