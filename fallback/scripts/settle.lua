#!lua flags=allow-oom
-- settle: OPEN -> RESOLVED, if nothing came in since the reviews were read.
--   ARGV[5] id   [6] the version that the reviews were read at   [7] outcome, JSON   [8] event to tell, or ''
--   [9] retention, ms
-- -> {'ok', version} | refused: unknown, ended state, changed version
local kept = replay()
if kept then
  return kept
end
local refusal = judge_state(ARGV[5], 'open')
if refusal then
  return refusal
end
local version = call('HGET', record(ARGV[5]), 'version')
if version ~= ARGV[6] then
  return { 'refused', 'changed', version }
end
return remember({ 'ok', finish(ARGV[5], 'resolved', ARGV[7], ARGV[8], clock(), tonumber(ARGV[9])) })
