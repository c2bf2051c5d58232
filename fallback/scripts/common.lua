-- What all scripts of a queue share. The loader puts it between a script's first line and the rest, after
--   local K = { <name> = KEYS[n], ... }        the indexes, as fallback/keys.py lists them
-- ARGV[1] is always the queue's prefix, from which the keys of items are derived: they bear the same hash tag.
-- ARGV[2..4] are the request's key, its fingerprint and how long its reply is kept, ms; an empty key keeps nothing.
-- A reply is {'ok', ...} or {'refused', why, ...}. Refusals come before the first write: Lua has no rollback.
local P = ARGV[1]
local call = redis.call

-- The server's clock, the only one, in ms.
local function clock()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Whole numbers as text: Lua's own conversion keeps 14 digits.
local function text(number)
  return string.format('%.0f', number)
end

local function record(id)
  return P .. 'd:' .. id
end

-- The index of what waits, by a record's field `tier`; a record without one is at the first.
local FREE = { [false] = K.free, ['0'] = K.free, ['1'] = K.free1, ['2'] = K.free2, ['3'] = K.free3 }

-- Where an item stands among those that wait: by its deadline less the boost of its priority, ms, then by age among any
-- AGES that came one after the other. Counted from 2020, so that it is exact as a score (below 2^53).
local function order_of(expire, boost, seq)
  local EPOCH, AGES = 1577836800000, 8192
  return text((expire - EPOCH - boost) * AGES + seq % AGES)
end

-- The member of `holds` and `answered` for what a reviewer has to do with a deferral: all of theirs stand together.
local function hold(reviewer, id)
  return reviewer .. '\0' .. id
end

-- The reply that this request id got before; nil the first time.
local function replay()
  if ARGV[2] == '' then
    return nil
  end
  local kept = call('GET', P .. 'r:' .. ARGV[2])
  if not kept then
    return nil
  end
  local cut = string.find(kept, ' ', 1, true)
  if string.sub(kept, 1, cut - 1) ~= ARGV[3] then
    return { 'refused', 'reused' }
  end
  return cjson.decode(string.sub(kept, cut + 1))
end

local function remember(reply)
  if ARGV[2] ~= '' then
    call('SET', P .. 'r:' .. ARGV[2], ARGV[3] .. ' ' .. cjson.encode(reply), 'PX', ARGV[4])
  end
  return reply
end

-- The record as JSON: one text is read faster than its many fields; and how many bytes it brought. False where
-- there is none.
local function described(id)
  local flat, fields = call('HGETALL', record(id)), {}
  for at = 1, #flat, 2 do
    fields[flat[at]] = flat[at + 1]
  end
  return #flat > 0 and cjson.encode(fields), fields.bytes
end

-- Counts `many` of `what` in this minute. The first of a minute takes away what is older than an hour.
local function tally(what, many, time)
  local minute = math.floor(time / 60000)
  if call('HINCRBY', K.load, text(minute) .. ':' .. what, many) ~= many then
    return
  end
  for _, field in ipairs(call('HKEYS', K.load)) do
    local of = string.match(field, '^(%d+):')
    if of and tonumber(of) < minute - 60 then
      call('HDEL', K.load, field)
    end
  end
end

-- Bytes came, or went (less than nothing).
local function weigh(bytes)
  if bytes ~= 0 then
    call('HINCRBY', K.load, 'bytes', text(bytes))
  end
end

-- Adds to what is remembered of a reply what is not worth keeping: the record as it stands.
local function with_record(reply, id)
  if reply[1] == 'ok' then
    reply[#reply + 1] = (described(id))
  end
  return reply
end

-- The same for a reply that lists leases from `first` on, JSON that begins with the id: each becomes a list of that, the
-- record, and the subject where all that it brought is small, '' where there is none.
local function told(reply, first)
  local SMALL_BYTES = 16384
  for at = first, #reply do
    local id = string.match(reply[at], '^%["(%w+)"')
    local record, bytes = described(id)
    reply[at] = { reply[at], record or '' }
    if bytes and tonumber(bytes) <= SMALL_BYTES then
      -- Of a key that holds no string, too, this one says nil.
      reply[at][3] = call('MGET', P .. 'b:' .. id .. ':subject')[1] or ''
    end
  end
  return reply
end

-- What the slots' fields of these names say, the first of which is 'state': {{field 1, ...} of slot 0, ...}; then what the
-- record's other fields say. Nearly all have one slot: one call. A slot that nobody ever held has no fields: it is FREE.
local function slots_of(key, names, ...)
  local asked = { 'slots', ... }
  local others = #asked
  local function ask(first, last)
    for slot = first, last do
      for _, name in ipairs(names) do
        asked[#asked + 1] = 's' .. slot .. '.' .. name
      end
    end
  end
  ask(0, 0)
  local found = call('HMGET', key, unpack(asked))
  local count = tonumber(found[1] or 0)
  if count > 1 then
    ask(1, count - 1)
    found = call('HMGET', key, unpack(asked))
  end
  local slots = {}
  for slot = 1, count do
    slots[slot] = { unpack(found, others + (slot - 1) * #names + 1, others + slot * #names) }
    slots[slot][1] = slots[slot][1] or 'free'
  end
  return slots, unpack(found, 2, others)
end

-- How many of these slots, whose first field is their state, are FREE and HELD.
local function count_states(slots)
  local free, held = 0, 0
  for _, slot in ipairs(slots) do
    if slot[1] == 'free' then
      free = free + 1
    elseif slot[1] == 'held' then
      held = held + 1
    end
  end
  return free, held
end

-- How many of an OPEN deferral's slots are FREE and HELD.
local function count_slots(key)
  return count_states((slots_of(key, { 'state' })))
end

-- Wakes those who wait for work: a slot of this deferral became FREE.
local function wake(id)
  call('XADD', K.changes, 'MAXLEN', '~', 64, '*', 'id', id)
end

-- Puts an OPEN deferral into the one index that its slots call for.
local function place(id, key)
  local slots, order, tier = slots_of(key, { 'state' }, 'order', 'tier')
  local free, held = count_states(slots)
  local waiting = FREE[tier]
  local target = (free > 0 and waiting) or (held > 0 and K.held) or K.full
  for _, index in ipairs({ waiting, K.held, K.full }) do
    if index ~= target then
      call('ZREM', index, id)
    end
  end
  call('ZADD', target, order, id)
end

-- HELD -> FREE. `why` is what the holder is told who comes later.
local function free_slot(id, key, slot, why)
  local field = 's' .. slot
  call('HSET', key, field .. '.state', 'free', field .. '.last', why)
  call('ZREM', K.leases, id .. ':' .. slot)
  call('ZREM', K.holds, hold(call('HGET', key, field .. '.holder'), id))
end

-- Lapses up to `limit` leases whose time is over: HELD -> FREE. What costs is the call: of deferrals with one slot, nearly
-- all, each index is written once for all of them.
local function lapse(time, limit)
  local over = call('ZRANGE', K.leases, '-inf', text(time), 'BYSCORE', 'LIMIT', 0, limit)
  local held, alone, waiting, woken = { K.holds }, { K.held }, {}, nil
  for _, member in ipairs(over) do
    local cut = string.find(member, ':', 1, true)
    local id, slot = string.sub(member, 1, cut - 1), string.sub(member, cut + 1)
    local key, field = record(id), 's' .. slot
    local slots, tier, order, holder = unpack(call('HMGET', key, 'slots', 'tier', 'order', field .. '.holder'))
    -- Without its record, or enough of it, there is nothing to free; left here it would stop all who come after it.
    if slots and order and holder then
      woken = id
      if slots == '1' then
        call('HSET', key, field .. '.state', 'free', field .. '.last', 'lapsed')
        held[#held + 1], alone[#alone + 1] = hold(holder, id), id
        local index = FREE[tier]
        local members = waiting[index] or { index }
        waiting[index], members[#members + 1], members[#members + 2] = members, order, id
      else
        free_slot(id, key, slot, 'lapsed')
        place(id, key)
      end
    end
  end
  if #alone > 1 then
    call('ZREM', unpack(held))
    call('ZREM', unpack(alone))
  end
  for _, members in pairs(waiting) do
    call('ZADD', unpack(members))
  end
  if woken then
    wake(woken)
  end
  if #over > 0 then
    call('ZREM', K.leases, unpack(over))
  end
  return #over
end

-- What a reviewer did with this deferral before, beside what its slots say: 'undone' (took an answer back),
-- 'answered' (took it back, then let the place go), 'skipped', 'escalated' (skipped it to the next tier), or 'excluded'
-- by the client; nil for nothing. All but the first are never asked again.
local function past(key, reviewer)
  local found = call('HGET', key, 'x.' .. reviewer)
  return found and string.match(found, '^%a+') or nil
end

-- The unfinished work kept beside a deferral: a hash of <slot>:<reviewer> -> draft.
local function drafts(id)
  return P .. 'w:' .. id
end

-- The field of this reviewer's draft; '' where they keep none.
local function draft_of(id, reviewer)
  for _, field in ipairs(call('HKEYS', drafts(id))) do
    if string.match(field, ':(.*)$') == reviewer then
      return field
    end
  end
  return ''
end

-- Forgets one draft.
local function forget_draft(id, field)
  call('HINCRBY', K.load, 'drafts', -call('HSTRLEN', drafts(id), field))
  call('HDEL', drafts(id), field)
end

-- Forgets the drafts of this reviewer.
local function forget_drafts(id, reviewer)
  for _, field in ipairs(call('HKEYS', drafts(id))) do
    if string.match(field, ':(.*)$') == reviewer then
      forget_draft(id, field)
    end
  end
end

-- Judges a holder's call: nil, since when, and the deferral's version, when the reviewer holds the slot now; else the
-- refusal.
local function judge(id, slot, generation, nonce, reviewer, time)
  local field = 's' .. slot
  local found = call('HMGET', record(id), 'state', field .. '.state', field .. '.generation', field .. '.nonce',
    field .. '.holder', field .. '.until', field .. '.last', field .. '.since', field .. '.resumed', 'version')
  local state, slot_now, current, holder = found[1], found[2], tonumber(found[3]), found[5]
  if not state then
    return { 'refused', 'unknown' }
  end
  if not current or generation < 1 or generation > current or (generation == current and nonce ~= found[4]) then
    return { 'refused', 'forged' }
  end
  if generation == current and holder ~= reviewer then
    return { 'refused', 'foreign' }
  end
  -- SETTLING shows nowhere: to holders it is as if it were OPEN.
  if state ~= 'open' and state ~= 'settling' then
    return { 'refused', 'ended', state }
  end
  if generation < current then
    local first, last = string.match(found[9] or '', '(%d+)-(%d+)')
    local resumed = tonumber(last) == current and generation >= tonumber(first)
    return { 'refused', 'stale', resumed and 'resumed' or 'retaken' }
  end
  if slot_now == 'filled' then
    return { 'refused', 'stale', 'submitted' }
  end
  if slot_now == 'free' then
    return { 'refused', 'stale', found[7] }
  end
  if tonumber(found[6]) <= time then
    return { 'refused', 'stale', 'lapsed' }
  end
  return nil, tonumber(found[8]), tonumber(found[10])
end

-- nil when the deferral is in one of the states, else the refusal.
local function judge_state(id, ...)
  local state = call('HGET', record(id), 'state')
  if not state then
    return { 'refused', 'unknown' }
  end
  for _, allowed in ipairs({ ... }) do
    if state == allowed then
      return nil
    end
  end
  return { 'refused', 'ended', state }
end

-- Everybody who still holds one of these slots, whose first field is their state, loses it, but for the slot `mine`.
-- `why` is what they are told.
local function revoke(id, key, slots, why, mine)
  for number, slot in ipairs(slots) do
    if slot[1] == 'held' and number - 1 ~= mine then
      free_slot(id, key, number - 1, why)
    end
  end
end

-- Forgets outcomes up to and with `last`, and remembers up to which: a reader that was not so far is told.
local function trim_outcomes(last)
  local newest = call('XREVRANGE', K.outcomes, last, '-', 'COUNT', 1)[1]
  if newest then
    local ms, number = string.match(newest[1], '^(%d+)-(%d+)$')
    call('SET', P .. 'trimmed', newest[1])
    call('XTRIM', K.outcomes, 'MINID', ms .. '-' .. text(number + 1))
  end
end

-- To `state`, one of the last: the outcome, its stream entry and, where `event` names one, its row in the outbox. Everybody who
-- still holds a slot loses it. Everything about the deferral is kept for `retention` ms from here on, until `purge` takes it.
-- `fields` are written with it, those of the slot `mine`, which is not HELD any more; its version goes on from `base`.
local function finish(id, state, outcome, event, time, retention, mine, base, fields)
  local key = record(id)
  local slots, seq, tier, version, task = slots_of(key, { 'state', 'holder' }, 'seq', 'tier', 'version', 'task')
  revoke(id, key, slots, state, mine)
  -- It stands in one of these.
  for _, index in ipairs({ K.held, FREE[tier], K.full, K.settling }) do
    if call('ZREM', index, id) == 1 then
      break
    end
  end
  call('ZREM', K.open, id)
  call('ZREM', K.expiry, id)
  -- Of a gold item that is still there it is kept who was right; it is told to nobody, and is no outcome for those who
  -- read these.
  local tries = string.match(event, '^gold (.*)$')
  if tries then
    for _, try in ipairs(cjson.decode(tries)) do
      if call('HEXISTS', K.gold, string.match(try[1], '^%S+')) == 1 then
        call('HSET', K.tried, try[1], try[2] .. ' ' .. text(time))
      end
    end
    event = ''
  end
  for number, slot in ipairs(slots) do
    if slot[1] == 'filled' then
      call('ZREM', K.answered, hold(slot[2], id))
    end
  end
  version = (base or version) + 1
  call('HSET', key, 'version', version, 'state', state, 'outcome', outcome, 'outcome_ms', text(time), 'event', event,
    'attempt', 0, unpack(fields or {}))
  call('ZADD', ({ resolved = K.resolved, expired = K.expired, cancelled = K.cancelled })[state], seq, id)
  call('ZADD', K.ended, text(time + retention), id)
  for _, field in ipairs(call('HKEYS', drafts(id))) do
    forget_draft(id, field)
  end
  if not tries then
    call('XADD', K.outcomes, '*', 'id', id)
  end
  if event ~= '' then
    call('ZADD', K.outbox, text(time), id)
  end
  if call('HINCRBY', K.tasks, task, -1) <= 0 then
    call('HDEL', K.tasks, task)
    -- No record that names it is purged later than the last of all: this one may have been kept for less than those before.
    local last = call('ZRANGE', K.ended, 0, 0, 'REV', 'WITHSCORES')[2]
    call('PEXPIREAT', P .. 't:' .. task, text(tonumber(last) + 86400000))
  end
  return version
end

-- OPEN -> RESOLVED, or SETTLING where there is an undo window; that never outlasts the deferral's own end. The last three as
-- in `finish`. Returns the version, and whether it is over.
local function settle(id, outcome, event, retention, window, time, mine, base, fields)
  local key = record(id)
  local due = window > 0 and math.min(time + window, tonumber(call('HGET', key, 'expire_ms'))) or time
  if due <= time then
    return finish(id, 'resolved', outcome, event, time, retention, mine, base, fields), true
  end
  local slots, tier, version = slots_of(key, { 'state' }, 'tier', 'version')
  revoke(id, key, slots, 'settling', mine)
  for _, index in ipairs({ FREE[tier], K.held, K.full, K.expiry }) do
    call('ZREM', index, id)
  end
  call('ZADD', K.settling, text(due), id)
  version = (base or version) + 1
  call('HSET', key, 'version', version, 'state', 'settling', 'outcome', outcome, 'event', event, unpack(fields or {}))
  return version, false
end

-- nil when there is a tier above the deferral's, else the refusal.
local function judge_tier(key, tiers)
  if tonumber(call('HGET', key, 'tier') or 0) + 1 >= tonumber(tiers) then
    return { 'refused', 'highest' }
  end
  return nil
end

-- A review moves to a FREE place below its own. Tokens of both places are over, and stay so: generations go on.
local function move(key, from, to)
  local source, target, values = 's' .. from, 's' .. to, {}
  for _, name in ipairs({ 'holder', 'since', 'how', 'answer', 'comment', 'create_ms', 'tier' }) do
    local value = call('HGET', key, source .. '.' .. name)
    if value then
      values[#values + 1] = target .. '.' .. name
      values[#values + 1] = value
    end
  end
  call('HSET', key, target .. '.state', 'filled', source .. '.state', 'free', source .. '.last', 'submitted',
    unpack(values))
  call('HINCRBY', key, target .. '.generation', 1)
  call('HDEL', key, source .. '.answer', source .. '.comment', source .. '.create_ms', source .. '.tier')
end

-- OPEN -> OPEN at the next tier, with a deadline of its own: answers that are in stay as those of the tier before, in the
-- first places; after them come as many as are `wanted` of the next tier, `limit` at most. Returns the version.
local function escalate(id, wanted, limit, length, boost, time)
  local key = record(id)
  local places, before, seq = slots_of(key, { 'state' }, 'tier', 'seq')
  revoke(id, key, places, 'escalated')
  local tier, filled = tonumber(before or 0), 0
  for number, place in ipairs(places) do
    if place[1] == 'filled' then
      call('HSETNX', key, 's' .. number - 1 .. '.tier', tier)
      if filled < number - 1 then
        move(key, number - 1, filled)
      end
      filled = filled + 1
    end
  end
  local slots = filled + wanted
  local expire = time + length
  call('ZREM', FREE[before], id)
  call('HSET', key, 'tier', tier + 1, 'slots', slots, 'wanted', wanted, 'limit', filled + limit,
    'expire_ms', text(expire), 'order', order_of(expire, boost, tonumber(seq)))
  call('ZADD', K.expiry, text(expire), id)
  if slots > #places then
    tally('asked', slots - #places, time)
  end
  place(id, key)
  wake(id)
  return call('HINCRBY', key, 'version', 1)
end
