#!lua flags=allow-oom
-- grow: one more FREE slot for an OPEN deferral whose reviews do not agree.
--   ARGV[5] id   [6] the version that the reviews were read at
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
local free, held = count_slots(key)
local slots = slots_of(key)
if free + held > 0 or slots >= tonumber(call('HGET', key, 'limit')) then
  return { 'refused', 'limit', slots }
end
call('HSET', key, 'slots', slots + 1, 's' .. slots .. '.state', 'free', 's' .. slots .. '.generation', 0)
local now = call('HINCRBY', key, 'version', 1)
tally('asked', 1, clock())
place(id, key)
wake(id)
return remember({ 'ok', now })
