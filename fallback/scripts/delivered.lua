#!lua flags=allow-oom
-- delivered: the outcomes of ARGV[5..] were told; their rows go, also when another attempt is under way. A repeat
-- changes nothing: no request id.
-- -> {'ok', how many had a row}
local count = 0
for at = 5, #ARGV do
  count = count + call('ZREM', K.outbox, ARGV[at]) + call('ZREM', K.dead, ARGV[at])
end
return { 'ok', count }
