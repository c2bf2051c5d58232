#!lua flags=allow-oom
-- grow: one more FREE slot, or several, for an OPEN deferral whose reviews do not agree or are not enough.
--   ARGV[5] id   [6] the version that the reviews were read at   [7] slots at most   [8] how many more, one unless said
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
local slots, more = #found, tonumber(ARGV[8] or 1)
if free + held > 0 or slots + more > tonumber(ARGV[7]) then
  return { 'refused', 'limit', slots }
end
call('HSET', key, 'slots', slots + more)
local now = call('HINCRBY', key, 'version', 1)
tally('asked', more, clock())
place(id, key)
wake(id)
return remember({ 'ok', now })
