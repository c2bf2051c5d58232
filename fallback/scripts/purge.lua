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
  local idempotency = call('HGET', record(id), 'key')
  if idempotency and idempotency ~= '' then
    call('UNLINK', P .. 'k:' .. idempotency)
  end
  call('UNLINK', record(id), P .. 'b:' .. id .. ':subject', P .. 'b:' .. id .. ':inputs')
end
trim_outcomes(text(math.max(0, time - tonumber(ARGV[6]) - 1)))
return { 'ok', #over, over }
