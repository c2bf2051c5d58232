#!lua flags=allow-oom
-- release: HELD -> FREE. Who took an answer back and now lets the place go has had their say: others answer.
--   ARGV[5] id   [6] slot   [7] generation   [8] nonce   [9] reviewer
-- -> {'ok'} | refused: see judge
local kept = replay()
if kept then
  return kept
end
local id = ARGV[5]
local key, time = record(id), clock()
local refusal = judge(id, ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], time)
if refusal then
  return refusal
end
if past(key, ARGV[9]) then
  call('HSET', key, 'x.' .. ARGV[9], 'answered ' .. text(time))
end
free_slot(id, key, ARGV[6], 'released')
place(id, key)
wake(id)
return remember({ 'ok' })
