#!lua flags=allow-oom
-- lease: FREE -> HELD for up to `limit` deferrals of some tiers, the most urgent first, none that this reviewer holds,
-- answered or skipped, or is excluded from.
--   ARGV[5] reviewer   [6] limit   [7] how long a lease is, ms   [8] 'blind' or 'assisted'
--   [9] the tiers, each with where in its index to begin: '0:0 1:0'; after a ';' those to look through if these have
--   nothing   [10] how many entries to look at, at most   [11..] a nonce for each lease
-- -> {'ok', where to go on, as [9], or '' at the end, {id, slot, generation, nonce, until, how, field of their draft
--           or '', the record as JSON}, ...}
local reviewer, limit, length = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local CHUNK, LAPSE_MAX = 64, 16

local kept = replay()
if kept then
  return told(kept, 3)
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
  call('ZADD', K.holds, 0, hold(reviewer, id, slot))
  place(id, key)
  return { id, slot, generation, nonce, text(till), ARGV[8], draft_of(id, reviewer) }
end

local first, rest = string.match(ARGV[9], '^([^;]*);?(.*)$')
local tiers, step

local function begin(group)
  tiers = {}
  for tier, at in string.gmatch(group, '(%d):(%d+)') do
    tiers[#tiers + 1] = { name = tier, index = FREE[tier], at = tonumber(at), ids = {}, next = 1, more = true }
  end
  -- Scores are for comparing tiers.
  step = #tiers > 1 and 2 or 1
end
begin(first)

local function fill(tier)
  if step == 1 then
    tier.ids = call('ZRANGE', tier.index, tier.at, tier.at + CHUNK - 1)
  else
    tier.ids = call('ZRANGE', tier.index, tier.at, tier.at + CHUNK - 1, 'WITHSCORES')
  end
  tier.next, tier.more = 1, #tier.ids == CHUNK * step
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

local reply, seen = { 'ok', '' }, 0
while #reply - 2 < limit do
  local tier = following()
  if not tier and #reply == 2 and rest ~= '' then
    begin(rest)
    rest, tier = '', following()
  end
  if not tier then
    return told(remember(reply), 3)
  end
  if seen >= tonumber(ARGV[10]) then
    break
  end
  local id = tier.ids[tier.next]
  local key = record(id)
  local slot = tonumber(call('HGET', key, 'expire_ms')) > time and slot_for(key)
  if slot then
    reply[#reply + 1] = take(id, key, slot, ARGV[10 + #reply - 1])
  end
  -- What left the index moved the rest up by one.
  if not slot or call('ZSCORE', tier.index, id) then
    tier.at = tier.at + 1
  end
  tier.next, seen = tier.next + step, seen + 1
end
local on = {}
for _, tier in ipairs(tiers) do
  on[#on + 1] = tier.name .. ':' .. tier.at
end
reply[2] = table.concat(on, ' ') .. (rest ~= '' and ';' .. rest or '')
return told(remember(reply), 3)
