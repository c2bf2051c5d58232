#!lua flags=allow-oom
-- failed: outcomes that were claimed and not taken. An attempt that was claimed anew meanwhile has no say. A repeat
-- sets the same: no request id.
--   ARGV[5] retention, ms   then for each
--   [+1] id   [+2] the attempt it was claimed as   [+3] due again so many ms from now, or a dead letter where that is -1
--   [+4] the reason; '' where it was not attempted, which counts as no attempt
--   [+5] digest of its target, where that said it is gone for good, or ''   [+6] that target
-- -> {'ok', how many had a say}
local time, count = clock(), 0
for at = 6, #ARGV, 6 do
  local id, attempt, after, reason, gone, target = unpack(ARGV, at, at + 5)
  local key = record(id)
  if call('HGET', key, 'attempt') == attempt and call('ZSCORE', K.outbox, id) then
    if reason == '' then
      call('HINCRBY', key, 'attempt', -1)
    else
      call('HSET', key, 'reason', reason)
    end
    if tonumber(after) < 0 then
      call('ZREM', K.outbox, id)
      call('ZADD', K.dead, text(time), id)
    else
      call('ZADD', K.outbox, text(time + tonumber(after)), id)
    end
    if gone ~= '' then
      call('SET', P .. 'g:' .. gone, text(time) .. ' ' .. target, 'PX', ARGV[5])
    end
    count = count + 1
  end
end
return { 'ok', count }
