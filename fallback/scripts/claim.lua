#!lua flags=allow-oom
-- claim: takes up to ARGV[5] outcomes that are due to be told; each is due again ARGV[6] ms from now unless the
-- caller says before how it went.
-- -> {'ok', {id, attempt}, ...}
local kept = replay()
if kept then
  return kept
end
local time = clock()
local reply = { 'ok' }
for _, id in ipairs(call('ZRANGE', K.outbox, '-inf', text(time), 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[5]))) do
  if call('EXISTS', record(id)) == 1 then
    call('ZADD', K.outbox, text(time + tonumber(ARGV[6])), id)
    reply[#reply + 1] = { id, call('HINCRBY', record(id), 'attempt', 1) }
  else
    call('ZREM', K.outbox, id)
  end
end
if #reply == 1 then
  return reply
end
return remember(reply)
