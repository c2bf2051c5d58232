#!lua flags=allow-oom
-- release: HELD -> FREE.
--   ARGV[5] id   [6] slot   [7] generation   [8] nonce   [9] reviewer
-- -> {'ok'} | refused: see judge
local kept = replay()
if kept then
  return kept
end
local id = ARGV[5]
local refusal = judge(id, ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], clock())
if refusal then
  return refusal
end
free_slot(id, record(id), ARGV[6], 'released')
place(id, record(id))
wake(id)
return remember({ 'ok' })
