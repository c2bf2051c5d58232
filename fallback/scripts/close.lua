#!lua flags=allow-oom
-- close: SETTLING -> RESOLVED, once its undo window is over. A repeat finds it RESOLVED: no request id.
--   ARGV[5] id   [6] retention, ms
-- -> {'ok', version} | refused: unknown, ended state, early when
local id, time = ARGV[5], clock()
local refusal = judge_state(id, 'settling')
if refusal then
  return refusal
end
local due = call('ZSCORE', K.settling, id)
if due and tonumber(due) > time then
  return { 'refused', 'early', due }
end
local kept = call('HMGET', record(id), 'outcome', 'event')
return { 'ok', finish(id, 'resolved', kept[1], kept[2], time, tonumber(ARGV[6])) }
