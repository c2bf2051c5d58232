#!lua flags=allow-oom
-- undo: a reviewer takes their own answer back: FILLED -> HELD by them again, and the deferral SETTLING -> OPEN where it
-- was that. What was blind still is: nobody is shown the model's guess while an answer can be taken back. An answer of
-- a tier before stays: the tier that is asked now was asked because of it.
--   ARGV[5] id   [6] reviewer   [7] how long a lease is, ms   [8] nonce
-- -> {'ok', slot, generation, nonce, until, how} | refused: unknown, ended state, closed when, overdue when, nothing,
-- escalated
local kept = replay()
if kept then
  return kept
end
local id, reviewer, time = ARGV[5], ARGV[6], clock()
local key = record(id)
local found = call('HMGET', key, 'state', 'outcome_ms', 'expire_ms', 'slots')
local state, expire = found[1], tonumber(found[3])
if not state then
  return { 'refused', 'unknown' }
end
local slot, before
for number = 0, tonumber(found[4]) - 1 do
  local field = 's' .. number
  local values = call('HMGET', key, field .. '.state', field .. '.holder', field .. '.tier')
  if values[1] == 'filled' and values[2] == reviewer then
    slot, before = number, values[3]
  end
end
if state == 'resolved' and slot then
  return { 'refused', 'closed', found[2] }
end
if state ~= 'open' and state ~= 'settling' then
  return { 'refused', 'ended', state }
end
if not slot then
  return { 'refused', 'nothing' }
end
if before then
  return { 'refused', 'escalated' }
end
local due = state == 'settling' and call('ZSCORE', K.settling, id)
if due and tonumber(due) <= time then
  return { 'refused', 'closed', due }
end
if expire <= time then
  return { 'refused', 'overdue', text(expire) }
end

local field, till = 's' .. slot, math.min(time + tonumber(ARGV[7]), expire)
local generation = call('HINCRBY', key, field .. '.generation', 1)
call('HSET', key, field .. '.state', 'held', field .. '.nonce', ARGV[8], field .. '.since', text(time),
  field .. '.until', text(till), 'x.' .. reviewer, 'undone ' .. text(time))
call('HDEL', key, field .. '.answer', field .. '.comment', field .. '.create_ms')
call('ZADD', K.leases, text(till), id .. ':' .. slot)
call('ZADD', K.holds, 0, hold(reviewer, id))
call('ZREM', K.answered, hold(reviewer, id))
if state == 'settling' then
  call('HSET', key, 'state', 'open')
  call('HDEL', key, 'outcome', 'event')
  call('ZREM', K.settling, id)
  call('ZADD', K.expiry, text(expire), id)
end
call('HINCRBY', key, 'version', 1)
place(id, key)
if state == 'settling' and count_slots(key) > 0 then
  -- It was decided with a place still open, which is to be had again.
  wake(id)
end
return remember({ 'ok', slot, generation, ARGV[8], text(till), call('HGET', key, field .. '.how') })
