#!lua flags=allow-oom
-- purge: forgets up to ARGV[5] deferrals whose retention is over, and outcomes older than ARGV[6] ms. One that is still to
-- be told stays until it is, or is given up, and its task with it: whoever waits for it is promised to hear of it.
-- A repeat finds the next ones: no request id.
-- -> {'ok', how many were looked at, ids of those that are forgotten, ids of those whose outcome was given up}
local STAYS_MS = 10000
local time = clock()
local found = call('ZRANGE', K.ended, '-inf', text(time), 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[5]))
local over, untold, kept, gone = {}, {}, {}, 0
for _, id in ipairs(found) do
  if call('ZSCORE', K.outbox, id) then
    call('ZADD', K.ended, text(time + STAYS_MS), id)
    kept[call('HGET', record(id), 'task') or ''] = true
  else
    over[#over + 1] = id
  end
end
for _, id in ipairs(over) do
  if call('ZSCORE', K.dead, id) then
    untold[#untold + 1] = id
  end
  for _, index in ipairs({ K.ended, K.resolved, K.expired, K.cancelled, K.outbox, K.dead, K.flagged }) do
    call('ZREM', index, id)
  end
  local idempotency, bytes = unpack(call('HMGET', record(id), 'key', 'bytes'))
  if idempotency and idempotency ~= '' then
    call('UNLINK', P .. 'k:' .. idempotency)
  end
  gone = gone + tonumber(bytes or 0)
  call('UNLINK', record(id), P .. 'b:' .. id .. ':subject', P .. 'b:' .. id .. ':inputs')
end
weigh(-gone)
for task in pairs(kept) do
  -- One that an OPEN deferral asks has no end, which is the greatest.
  call('PEXPIREAT', P .. 't:' .. task, text(time + tonumber(ARGV[6]) + 86400000), 'GT')
end
trim_outcomes(text(math.max(0, time - tonumber(ARGV[6]) - 1)))
local minute = math.floor(time / 60000)
for _, field in ipairs(call('HKEYS', K.load)) do
  local of = string.match(field, '^(%d+):')
  if of and tonumber(of) < minute - 60 then
    call('HDEL', K.load, field)
  end
end
return { 'ok', #found, over, untold }
