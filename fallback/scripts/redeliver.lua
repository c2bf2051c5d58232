#!lua flags=allow-oom
-- redeliver: dead letters ARGV[5..] are due now, with all their attempts before them.
-- -> {'ok', how many}
local kept = replay()
if kept then
  return kept
end
local time, count = clock(), 0
for at = 5, #ARGV do
  -- A record whose time is over leaves its dead letter behind until the next purge.
  if call('ZREM', K.dead, ARGV[at]) == 1 and call('EXISTS', record(ARGV[at])) == 1 then
    call('HSET', record(ARGV[at]), 'attempt', 0)
    call('ZADD', K.outbox, text(time), ARGV[at])
    count = count + 1
  end
end
return remember({ 'ok', count })
