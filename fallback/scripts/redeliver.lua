#!lua flags=allow-oom
-- redeliver: dead letters are due now, as if they had never been tried, and their targets are called again.
--   ARGV[5] what the reply is remembered with   then for each
--   [+1] id   [+2] digest of its target, or '' where the record is gone
-- -> {'ok', how many, ARGV[5]}
local kept = replay()
if kept then
  return kept
end
local time, count = clock(), 0
for at = 6, #ARGV, 2 do
  local id, target = ARGV[at], ARGV[at + 1]
  -- A record whose time is over leaves its dead letter behind until the next purge.
  if call('ZREM', K.dead, id) == 1 and call('EXISTS', record(id)) == 1 then
    call('HSET', record(id), 'attempt', 0)
    call('ZADD', K.outbox, text(time), id)
    call('UNLINK', P .. 'g:' .. target)
    count = count + 1
  end
end
return remember({ 'ok', count, ARGV[5] })
