#!lua flags=allow-oom
-- settle: OPEN -> RESOLVED, or SETTLING where there is an undo window, if nothing came in since the reviews were read.
--   ARGV[5] id   [6] the version that the reviews were read at   [7] outcome, JSON   [8] event to tell, or ''
--   [9] retention, ms   [10] the undo window, ms; it never outlasts the deferral's own end
-- -> {'ok', version, the record as JSON} | refused: unknown, ended state, changed version
local kept = replay()
if kept then
  return with_record(kept, ARGV[5])
end
local refusal = judge_state(ARGV[5], 'open')
if refusal then
  return refusal
end
local id, time = ARGV[5], clock()
local version = call('HGET', record(id), 'version')
if version ~= ARGV[6] then
  return { 'refused', 'changed', version }
end
version = settle(id, ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10]), time)
return with_record(remember({ 'ok', version }), id)
