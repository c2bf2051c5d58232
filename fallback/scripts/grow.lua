#!lua flags=allow-oom
-- grow: one more FREE slot for an OPEN deferral whose reviews do not agree.
--   ARGV[5] id   [6] the version that the reviews were read at   [7] slots at most
-- -> {'ok', version} | refused: unknown, ended state, changed version, limit slots
local kept = replay()
if kept then
  return kept
end
local id = ARGV[5]
local key = record(id)
local refusal = judge_state(id, 'open')
if refusal then
  return refusal
end
local version = call('HGET', key, 'version')
if version ~= ARGV[6] then
  return { 'refused', 'changed', version }
end
local found = slots_of(key, { 'state' })
local free, held = count_states(found)
local slots = #found
if free + held > 0 or slots >= tonumber(ARGV[7]) then
  return { 'refused', 'limit', slots }
end
call('HSET', key, 'slots', slots + 1)
local now = call('HINCRBY', key, 'version', 1)
tally('asked', 1, clock())
place(id, key)
wake(id)
return remember({ 'ok', now })
