#!lua flags=allow-oom
-- expire: OPEN -> EXPIRED, once its time is over. One whose reviews are all in is settled or grown instead.
--   ARGV[5] id   [6] outcome, JSON   [7] event to tell, or ''   [8] retention, ms
-- -> {'ok', version} | refused: unknown, ended state, early when, full
local kept = replay()
if kept then
  return kept
end
local id, time = ARGV[5], clock()
local refusal = judge_state(id, 'open')
if refusal then
  return refusal
end
local expire = call('HGET', record(id), 'expire_ms')
if tonumber(expire) > time then
  return { 'refused', 'early', expire }
end
local free, held = count_slots(record(id))
if free + held == 0 then
  return { 'refused', 'full' }
end
return remember({ 'ok', finish(id, 'expired', ARGV[6], ARGV[7], time, tonumber(ARGV[8])) })
