#!lua flags=allow-oom
-- purge: forgets up to ARGV[5] deferrals whose retention is over, and outcomes older than ARGV[6] ms.
-- A repeat finds the next ones: no request id.
-- -> {'ok', how many, their ids}
local time = clock()
local over = call('ZRANGE', K.ended, '-inf', text(time), 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[5]))
for _, id in ipairs(over) do
  for _, index in ipairs({ K.ended, K.resolved, K.expired, K.cancelled, K.outbox, K.dead, K.flagged }) do
    call('ZREM', index, id)
  end
  call('UNLINK', record(id), P .. 'b:' .. id .. ':subject', P .. 'b:' .. id .. ':inputs')
end
call('XTRIM', K.outcomes, 'MINID', '~', text(math.max(0, time - tonumber(ARGV[6]))))
return { 'ok', #over, over }
