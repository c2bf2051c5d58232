#!lua flags=allow-oom
-- cancel: OPEN or SETTLING -> CANCELLED.
--   ARGV[5] id   [6] outcome, JSON   [7] event to tell, or ''   [8] retention, ms
-- -> {'ok', version} | refused: unknown, ended state
local kept = replay()
if kept then
  return kept
end
local refusal = judge_state(ARGV[5], 'open', 'settling')
if refusal then
  return refusal
end
return remember({ 'ok', finish(ARGV[5], 'cancelled', ARGV[6], ARGV[7], clock(), tonumber(ARGV[8])) })
