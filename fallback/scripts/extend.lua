#!lua flags=allow-oom
-- extend: HELD -> HELD for longer, never past the deferral's own end.
--   ARGV[5] id   [6] slot   [7] generation   [8] nonce   [9] reviewer   [10] how long from now, ms
-- -> {'ok', until, 'blind' or 'assisted'} | refused: see judge
local kept = replay()
if kept then
  return kept
end
local id, field, time = ARGV[5], 's' .. ARGV[6], clock()
local refusal = judge(id, ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], time)
if refusal then
  return refusal
end
local till = math.min(time + tonumber(ARGV[10]), tonumber(call('HGET', record(id), 'expire_ms')))
call('HSET', record(id), field .. '.until', text(till))
call('ZADD', K.leases, text(till), id .. ':' .. ARGV[6])
return remember({ 'ok', text(till), call('HGET', record(id), field .. '.how') })
