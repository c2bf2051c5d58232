#!lua flags=allow-oom
-- resume: HELD -> HELD by the same reviewer in another place: up to `limit` of what they hold, the longest held first,
-- each for another lease time under a token of its own, so that the one they had for it is stale.
--   ARGV[5] reviewer   [6] limit   [7] how long a lease is, ms   [8..] a nonce for each lease
-- -> {'ok', for each lease what `lease` tells, ...}
local reviewer, limit, length = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
-- Of somebody who holds more than this, some.
local HOLDS_MAX = 256

local kept = replay()
if kept then
  return told(kept, 2)
end
local time = clock()

local held = {}
local from, to = '[' .. reviewer .. '\0', '(' .. reviewer .. '\1'
for _, member in ipairs(call('ZRANGE', K.holds, from, to, 'BYLEX', 'LIMIT', 0, HOLDS_MAX)) do
  local id = string.sub(member, #reviewer + 2)
  local slots, expire = slots_of(record(id), { 'state', 'holder', 'since', 'until' }, 'expire_ms')
  for number, slot in ipairs(slots) do
    -- What is overdue is the lapse's; so is what has no record.
    if slot[1] == 'held' and slot[2] == reviewer and tonumber(slot[4]) > time then
      held[#held + 1] = { id = id, slot = number - 1, since = tonumber(slot[3]), expire = tonumber(expire) }
    end
  end
end
table.sort(held, function(a, b)
  return a.since < b.since or (a.since == b.since and a.id < b.id)
end)

local function take(one, nonce)
  local key, field = record(one.id), 's' .. one.slot
  local till = math.min(time + length, one.expire)
  local generation = call('HINCRBY', key, field .. '.generation', 1)
  -- The generations that this hold went through: tokens of all but the last are told why they are stale.
  local first, last = string.match(call('HGET', key, field .. '.resumed') or '', '(%d+)-(%d+)')
  if tonumber(last) ~= generation - 1 then
    first = generation - 1
  end
  call('HSET', key, field .. '.nonce', nonce, field .. '.until', text(till), field .. '.resumed',
    first .. '-' .. generation)
  call('ZADD', K.leases, text(till), one.id .. ':' .. one.slot)
  local how = call('HGET', key, field .. '.how')
  return cjson.encode({ one.id, one.slot, generation, nonce, text(till), how, draft_of(one.id, reviewer) })
end

local reply = { 'ok' }
for at = 1, math.min(limit, #held) do
  reply[#reply + 1] = take(held[at], ARGV[7 + at])
end
-- Nothing held is nothing to remember: a repeat finds the same.
return #reply > 1 and told(remember(reply), 2) or reply
