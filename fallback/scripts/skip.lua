#!lua flags=allow-oom
-- skip: HELD -> FREE; this reviewer is never asked again. One that enough people skipped is listed as flagged.
--   ARGV[5] id   [6] slot   [7] generation   [8] nonce   [9] reviewer   [10] reason   [11] how many people are enough
-- -> {'ok'} | refused: skipped how many, see judge
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
call('HSET', key, 'x.' .. ARGV[9], 'skipped ' .. text(time) .. ' ' .. ARGV[10], 'skips', skips + 1)
if skips + 1 >= tonumber(ARGV[11]) then
  call('ZADD', K.flagged, call('HGET', key, 'seq'), id)
end
forget_drafts(id, ARGV[9])
free_slot(id, key, ARGV[6], 'skipped')
place(id, key)
wake(id)
return remember({ 'ok' })
