#!lua flags=allow-oom
-- skip: HELD -> FREE; this reviewer is never asked again. One that enough people skipped is listed as flagged. With a
-- number of tiers it also escalates: OPEN -> OPEN at the next tier.
--   ARGV[5] id   [6] slot   [7] generation   [8] nonce   [9] reviewer   [10] reason   [11] how many people are enough
--   [12] how many tiers there are, or ''   [13..16] slots wanted, slots at most, time to review, boost: see escalate
-- -> {'ok'} | refused: skipped how many, highest, see judge
local SKIPS_MAX = 100

local kept = replay()
if kept then
  return kept
end
local id, time = ARGV[5], clock()
local key = record(id)
local refusal = judge(id, ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], time)
if refusal then
  return refusal
end
local skips = tonumber(call('HGET', key, 'skips') or 0)
if skips >= SKIPS_MAX then
  return { 'refused', 'skipped', skips }
end
local higher = (ARGV[12] or '') ~= ''
refusal = higher and judge_tier(key, ARGV[12])
if refusal then
  return refusal
end
local did = higher and 'escalated ' or 'skipped '
call('HSET', key, 'x.' .. ARGV[9], did .. text(time) .. ' ' .. ARGV[10], 'skips', skips + 1)
if skips + 1 >= tonumber(ARGV[11]) then
  call('ZADD', K.flagged, call('HGET', key, 'seq'), id)
end
forget_drafts(id, ARGV[9])
free_slot(id, key, ARGV[6], 'skipped')
if higher then
  escalate(id, tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16]), time)
else
  place(id, key)
  wake(id)
end
return remember({ 'ok' })
