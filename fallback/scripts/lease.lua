#!lua flags=allow-oom
-- lease: FREE -> HELD for up to `limit` deferrals, the most urgent first, none that this reviewer holds, answered or
-- skipped.
--   ARGV[5] reviewer   [6] limit   [7] how long a lease is, ms   [8] 'blind' or 'assisted'
--   [9] where in the index to begin   [10] how many entries to look at, at most   [11..] a nonce for each lease
-- -> {'ok', where to go on or -1, {id, slot, generation, nonce, until, how, field of their draft or '',
--           the record as JSON}, ...}
local reviewer, limit, length = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local CHUNK, LAPSE_MAX = 64, 16

-- Each with its record as it stands, which is not worth remembering.
local function told(reply)
  for at = 3, #reply do
    reply[at][#reply[at] + 1] = described(reply[at][1])
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

-- The first FREE slot, unless the reviewer is in another one or done with the deferral.
local function slot_for(key)
  local found
  local before = past(key, reviewer)
  if before and before ~= 'undone' then
    return nil
  end
  for slot = 0, slots_of(key) - 1 do
    local field = 's' .. slot
    local values = call('HMGET', key, field .. '.state', field .. '.holder')
    if values[1] == 'free' then
      found = found or slot
    elseif values[2] == reviewer then
      return nil
    end
  end
  return found
end

local function take(id, key, slot, nonce)
  local field = 's' .. slot
  local till = math.min(time + length, tonumber(call('HGET', key, 'expire_ms')))
  local generation = call('HINCRBY', key, field .. '.generation', 1)
  call('HSET', key, field .. '.state', 'held', field .. '.holder', reviewer, field .. '.nonce', nonce,
    field .. '.since', text(time), field .. '.until', text(till), field .. '.how', ARGV[8])
  call('ZADD', K.leases, text(till), id .. ':' .. slot)
  call('HINCRBY', K.holding, id, 1)
  call('HINCRBY', K.holders, reviewer, 1)
  place(id, key)
  return { id, slot, generation, nonce, text(till), ARGV[8], draft_of(id, reviewer) }
end

local reply = { 'ok', -1 }
local at, seen = tonumber(ARGV[9]), 0
while #reply - 2 < limit do
  local ids = call('ZRANGE', K.free, at, at + CHUNK - 1)
  for _, id in ipairs(ids) do
    local key = record(id)
    local slot = #reply - 2 < limit and tonumber(call('HGET', key, 'expire_ms')) > time and slot_for(key)
    if slot then
      reply[#reply + 1] = take(id, key, slot, ARGV[10 + #reply - 1])
    end
    -- What left the index moved the rest up by one.
    if not slot or call('ZSCORE', K.free, id) then
      at = at + 1
    end
  end
  seen = seen + #ids
  if #ids < CHUNK then
    -- Nothing taken is nothing to remember: a repeat may find something.
    return #reply > 2 and told(remember(reply)) or reply
  end
  if seen >= tonumber(ARGV[10]) then
    break
  end
end
reply[2] = at
return #reply > 2 and told(remember(reply)) or reply
