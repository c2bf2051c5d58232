#!lua flags=allow-oom
-- failed: attempt ARGV[6] to tell the outcome of ARGV[5] failed for the reason ARGV[8]: due again ARGV[7] ms from now,
-- or a dead letter where that is -1. An attempt that was claimed anew meanwhile has no say. A repeat sets the same.
-- -> {'ok'} | refused: superseded
local id, key = ARGV[5], record(ARGV[5])
if call('HGET', key, 'attempt') ~= ARGV[6] or not call('ZSCORE', K.outbox, id) then
  return { 'refused', 'superseded' }
end
local time, after = clock(), tonumber(ARGV[7])
call('HSET', key, 'reason', ARGV[8])
if after < 0 then
  call('ZREM', K.outbox, id)
  call('ZADD', K.dead, text(time), id)
else
  call('ZADD', K.outbox, text(time + after), id)
end
return { 'ok' }
