#!lua
-- park: accepts deferrals, whose content is already stored, and makes their records; or finds the one that the
-- idempotency key made before. Each is judged, then written, before the next is looked at, and none depends on another.
--   ARGV[5] slots at first   [6] slots at most   [7] OPEN deferrals beyond which the queue is over
--   [8] reviews an hour that may be asked for, 0 where nobody counts   [9] 'keep' where what is over is kept all the same
--   [10] most OPEN deferrals ever   [11] most bytes of content   [12] most outcomes that are still to be told
--   then for each deferral
--   [+1] id, made by the caller: what tells a repeat   [+2] digest of client and idempotency key, or ''
--   [+3] digest of the input   [+4] body: what never changes, JSON   [+5] digest of the task   [+6] priority, 0 to 9
--   [+7] time to review, ms   [+8] 'subject', 'inputs', 'subject inputs' or '': the content that must be there
--   [+9] its bytes, then 'a' for an audit, then 'c' where there is a callback
-- -> {'ok', JSON: a list with one of these for each}
--    ['ok', id, 1 if made now, how many are before it or -1, the limit it is over or ''] | ['refused', 'conflict', id]
--    ['refused', 'over', limit, how much there is, ms until there may be room or 0] | ['refused', 'lost', what]
-- Not allowed out of memory: it is the one script that makes the server fuller.
local FIRST, EACH = 13, 9
local slots, limit, depth_max = tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])
local budget, keep, open_max = tonumber(ARGV[8]), ARGV[9] == 'keep', tonumber(ARGV[10])
local bytes_max, untold_max = tonumber(ARGV[11]), tonumber(ARGV[12])
local time, depth = clock(), call('ZCARD', K.open)
local stored, came = tonumber(call('HGET', K.load, 'bytes') or 0), 0
local known_tasks, made, newest = {}, nil, {}
-- Looked up by the first that needs to know: outcomes still to be told, reviews asked for in the last hour; then what
-- this run asks for, and how long until the oldest of those asked for do not count any more, ms.
local untold, asked, asking, room = nil, nil, 0, 0

-- The part of a new record that is the same for all.
local fresh = {}
for slot = 0, slots - 1 do
  fresh[#fresh + 1], fresh[#fresh + 2] = 's' .. slot .. '.state', 'free'
end

local function content(id, what)
  return P .. 'b:' .. id .. ':' .. what
end

-- The reviews asked for in the last hour; sets `room`.
local function count_asked()
  local minute, fields, sum = math.floor(time / 60000), {}, 0
  for past = 60, 0, -1 do
    fields[#fields + 1] = text(minute - past) .. ':asked'
  end
  for past, found in ipairs(call('HMGET', K.load, unpack(fields))) do
    sum = sum + tonumber(found or 0)
    if found and room == 0 then
      room = (minute + past) * 60000 - time
    end
  end
  if room == 0 then
    room = (minute + 61) * 60000 - time
  end
  return sum
end

-- The limit that one more would be over, how much there is, and whether it is kept all the same. The hard ones first.
local function over(bytes, audit, called)
  if depth >= open_max and open_max > depth_max then
    return 'open_max', depth
  end
  if stored + came + bytes > bytes_max then
    return 'bytes_max', stored + came
  end
  if called then
    untold = untold or call('ZCARD', K.outbox) + call('ZCARD', K.dead)
    if untold >= untold_max then
      return 'outbox_max', untold
    end
  end
  if depth >= depth_max then
    return 'depth_max', depth, keep and depth < open_max
  end
  if budget > 0 and not audit then
    asked = asked or count_asked()
    if asked + asking + slots > budget then
      return 'budget_per_hour', asked + asking, keep
    end
  end
  return ''
end

-- nil, and the limit it is over or '', when all is there that a deferral needs; else the refusal.
local function judge_new(id, task, contents, bytes, audit, called)
  local beyond, much, kept = over(bytes, audit, called)
  if beyond ~= '' and not kept then
    call('UNLINK', content(id, 'subject'), content(id, 'inputs'))
    return { 'refused', 'over', beyond, much, room }
  end
  for what in string.gmatch(contents, '%a+') do
    if call('EXISTS', content(id, what)) == 0 then
      return { 'refused', 'lost', what }
    end
  end
  if not known_tasks[task] and call('EXISTS', P .. 't:' .. task) == 0 then
    return { 'refused', 'lost', 'task' }
  end
  return nil, beyond
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
    return { 'ok', known_id, 0, call('ZRANK', K.free, known_id) or -1, '' }
  end
  return { 'refused', 'conflict', known_id }
end

local function make(id, idempotency, input, body, task, priority, length, contents)
  local seq = call('INCR', K.seq)
  -- Priority first, then age; below 2^53, so exact as a score.
  local order = text((9 - tonumber(priority)) * 2 ^ 44 + seq)
  local expire = text(time + tonumber(length))
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
  call('ZADD', K.free, order, id)
end

-- After all is done: what came is counted once, not for each, and each is told how many are before the last like it.
local function account()
  for priority, of in pairs(newest) do
    tally(priority, #of, time)
    local before = call('ZRANK', K.free, of[#of][2])
    for _, verdict in ipairs(of) do
      verdict[4] = before
    end
  end
  if budget > 0 and asking > 0 then
    tally('asked', asking, time)
  end
  weigh(came)
end

local verdicts = {}
for at = FIRST, #ARGV, EACH do
  local id, idempotency, input, body, task, priority, length, contents, facts = unpack(ARGV, at, at + EACH - 1)
  local verdict = { 'ok', id, 1, -1, '' }
  if call('EXISTS', record(id)) == 0 then
    local bytes, audit, called = string.match(facts, '^(%d+)(a?)(c?)$')
    local other, beyond = judge_known(id, idempotency, input), ''
    if not other then
      other, beyond = judge_new(id, task, contents, tonumber(bytes), audit ~= '', called ~= '')
    end
    if other then
      verdict = other
    else
      make(id, idempotency, input, body, task, priority, length, contents)
      depth, made, came, asking = depth + 1, id, came + bytes, asking + slots
      verdict[5] = beyond
      local same = newest[priority] or {}
      newest[priority], same[#same + 1] = same, verdict
    end
  end
  verdicts[#verdicts + 1] = verdict
end
if made then
  account()
  wake(made)
end
return { 'ok', cjson.encode(verdicts) }
