#!lua
-- park: accepts a deferral, whose content is already stored, and makes its record; or finds the one that the
-- idempotency key made before.
--   ARGV[5] id, made by the caller: what tells a repeat   [6] digest of client and idempotency key, or ''
--   [7] digest of the input   [8] body: what never changes, JSON   [9] digest of the task   [10] priority, 0 to 9
--   [11] slots at first   [12] slots at most   [13] time to review, ms   [14] most OPEN deferrals
--   [15] 'subject', 'inputs', 'subject inputs' or '': the content that must be there
-- -> {'ok', id, 1 if made now} | refused: conflict id, full depth, lost what
-- Not allowed out of memory: it is the one script that makes the server fuller.
local id, idempotency, input = ARGV[5], ARGV[6], ARGV[7]
local key, subject, inputs = record(id), P .. 'b:' .. id .. ':subject', P .. 'b:' .. id .. ':inputs'
local task = P .. 't:' .. ARGV[9]

if call('EXISTS', key) == 1 then
  return { 'ok', id, 1 }
end
if idempotency ~= '' then
  local known = call('GET', P .. 'k:' .. idempotency)
  if known then
    local cut = string.find(known, ' ', 1, true)
    local known_id = string.sub(known, 1, cut - 1)
    call('UNLINK', subject, inputs)
    if string.sub(known, cut + 1) == input then
      return { 'ok', known_id, 0 }
    end
    return { 'refused', 'conflict', known_id }
  end
end
local depth = call('ZCARD', K.open)
if depth >= tonumber(ARGV[14]) then
  call('UNLINK', subject, inputs)
  return { 'refused', 'full', depth }
end
for what in string.gmatch(ARGV[15], '%a+') do
  if call('EXISTS', P .. 'b:' .. id .. ':' .. what) == 0 then
    return { 'refused', 'lost', what }
  end
end
if call('EXISTS', task) == 0 then
  return { 'refused', 'lost', 'task' }
end

local time = clock()
local seq = call('INCR', K.seq)
-- Priority first, then age; below 2^53, so exact as a score.
local order = (9 - tonumber(ARGV[10])) * 2 ^ 44 + seq
local expire = time + tonumber(ARGV[13])
call('HSET', key, 'state', 'open', 'version', 1, 'seq', text(seq), 'order', text(order), 'body', ARGV[8],
  'task', ARGV[9], 'idempotency', idempotency, 'limit', ARGV[12], 'wanted', ARGV[11], 'slots', ARGV[11],
  'create_ms', text(time), 'expire_ms', text(expire))
for slot = 0, tonumber(ARGV[11]) - 1 do
  call('HSET', key, 's' .. slot .. '.state', 'free', 's' .. slot .. '.generation', 0)
end
call('PERSIST', subject)
call('PERSIST', inputs)
call('PERSIST', task)
call('HINCRBY', K.tasks, ARGV[9], 1)
if idempotency ~= '' then
  call('SET', P .. 'k:' .. idempotency, id .. ' ' .. input)
end
call('ZADD', K.open, text(seq), id)
call('ZADD', K.expiry, text(expire), id)
place(id, key)
wake(id)
return { 'ok', id, 1 }
