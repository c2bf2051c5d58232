#!lua
-- park: accepts deferrals, whose content is already stored, and makes their records; or finds the one that the
-- idempotency key made before. Each is judged, then written, before the next is looked at, and none depends on another.
--   ARGV[5] slots at first   [6] slots at most   [7] most OPEN deferrals
--   then for each deferral
--   [+1] id, made by the caller: what tells a repeat   [+2] digest of client and idempotency key, or ''
--   [+3] digest of the input   [+4] body: what never changes, JSON   [+5] digest of the task
--   [+6] the boost of its priority, ms
--   [+7] time to review, ms   [+8] 'subject', 'inputs', 'subject inputs' or '': the content that must be there
--   [+9] '', or the number of its tier and who is never asked, JSON: a list of texts
-- -> {'ok', JSON: a list with one of these for each}
--    ['ok', id, 1 if made now] | ['refused', 'conflict', id] | ['refused', 'full', depth] | ['refused', 'lost', what]
-- Not allowed out of memory: it is the one script that makes the server fuller.
local FIRST, EACH = 8, 9
local slots, limit, depth_max = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local time, depth = clock(), call('ZCARD', K.open)
local known_tasks, made = {}, nil

-- The part of a new record that is the same for all.
local fresh = {}
for slot = 0, slots - 1 do
  fresh[#fresh + 1], fresh[#fresh + 2] = 's' .. slot .. '.state', 'free'
end

local function content(id, what)
  return P .. 'b:' .. id .. ':' .. what
end

-- nil when all is there that a deferral needs, else the refusal.
local function judge_new(id, task, contents)
  if depth >= depth_max then
    call('UNLINK', content(id, 'subject'), content(id, 'inputs'))
    return { 'refused', 'full', depth }
  end
  for what in string.gmatch(contents, '%a+') do
    if call('EXISTS', content(id, what)) == 0 then
      return { 'refused', 'lost', what }
    end
  end
  if not known_tasks[task] and call('EXISTS', P .. 't:' .. task) == 0 then
    return { 'refused', 'lost', 'task' }
  end
  return nil
end

-- What the idempotency key made before, nil when it is new.
local function judge_known(id, idempotency, input)
  local known = idempotency ~= '' and call('GET', P .. 'k:' .. idempotency)
  if not known then
    return nil
  end
  local cut = string.find(known, ' ', 1, true)
  local known_id = string.sub(known, 1, cut - 1)
  call('UNLINK', content(id, 'subject'), content(id, 'inputs'))
  if string.sub(known, cut + 1) == input then
    return { 'ok', known_id, 0 }
  end
  return { 'refused', 'conflict', known_id }
end

-- Writes who is asked of a deferral that is not for everybody; returns the index that it waits in.
local function narrow(id, whom)
  local said = cjson.decode(whom)
  for at = 2, #said do
    call('HSET', record(id), 'x.' .. said[at], 'excluded ' .. text(time))
  end
  if said[1] ~= '0' then
    call('HSET', record(id), 'tier', said[1])
  end
  return FREE[said[1]]
end

local function make(id, idempotency, input, body, task, boost, length, contents, whom)
  local seq = call('INCR', K.seq)
  local expire = text(time + tonumber(length))
  local order = order_of(time + length, boost, seq)
  call('HSET', record(id), 'state', 'open', 'version', 1, 'seq', seq, 'order', order, 'task', task,
    'key', idempotency, 'limit', limit, 'wanted', slots, 'slots', slots, 'create_ms', text(time),
    'expire_ms', expire, 'body', body, unpack(fresh))
  for what in string.gmatch(contents, '%a+') do
    call('PERSIST', content(id, what))
  end
  if not known_tasks[task] then
    call('PERSIST', P .. 't:' .. task)
    known_tasks[task] = true
  end
  call('HINCRBY', K.tasks, task, 1)
  if idempotency ~= '' then
    call('SET', P .. 'k:' .. idempotency, id .. ' ' .. input)
  end
  call('ZADD', K.open, seq, id)
  call('ZADD', K.expiry, expire, id)
  call('ZADD', whom == '' and K.free or narrow(id, whom), order, id)
end

local verdicts = {}
for at = FIRST, #ARGV, EACH do
  local id, idempotency, input, body, task, boost, length, contents, whom = unpack(ARGV, at, at + EACH - 1)
  local verdict = { 'ok', id, 1 }
  if call('EXISTS', record(id)) == 0 then
    local other = judge_known(id, idempotency, input) or judge_new(id, task, contents)
    if other then
      verdict = other
    else
      make(id, idempotency, input, body, task, boost, length, contents, whom)
      depth, made = depth + 1, id
    end
  end
  verdicts[#verdicts + 1] = verdict
end
if made then
  wake(made)
end
return { 'ok', cjson.encode(verdicts) }
