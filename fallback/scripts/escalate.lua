#!lua flags=allow-oom
-- escalate: OPEN -> OPEN at the next tier, when all its reviews are in and do not agree, or its time is over and they
-- are not. (A holder's skip may do it too.)
--   ARGV[5] id   [6] the version that the reviews were read at   [7] 'split' or 'overdue'   [8] how many tiers there are
--   [9] slots wanted   [10] slots at most   [11] time to review, ms   [12] the boost of its priority, ms
-- -> {'ok', version} | refused: unknown, ended state, changed version, highest, early when, full, open
local kept = replay()
if kept then
  return kept
end
local id, time = ARGV[5], clock()
local key = record(id)
local refusal = judge_state(id, 'open')
if refusal then
  return refusal
end
local found = call('HMGET', key, 'version', 'expire_ms')
if found[1] ~= ARGV[6] then
  return { 'refused', 'changed', found[1] }
end
refusal = judge_tier(key, ARGV[8])
if refusal then
  return refusal
end
local free, held = count_slots(key)
if ARGV[7] == 'split' and free + held > 0 then
  return { 'refused', 'open', free + held }
elseif ARGV[7] == 'overdue' and tonumber(found[2]) > time then
  return { 'refused', 'early', found[2] }
elseif ARGV[7] == 'overdue' and free + held == 0 then
  return { 'refused', 'full' }
end
local wanted, limit, length, boost = unpack(ARGV, 9, 12)
return remember({ 'ok', escalate(id, tonumber(wanted), tonumber(limit), tonumber(length), tonumber(boost), time) })
