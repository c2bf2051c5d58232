#!lua
-- park: accepts deferrals, whose content is already stored, and makes their records; or finds the one that the
-- idempotency key made before. All are judged, in order, then all that are accepted are written: what costs is the
-- call, so a run asks once what is there and writes each index once.
--   ARGV[5] slots at first   [6] OPEN deferrals beyond which the queue is over   [7] reviews an hour that may be asked for,
--   0 where nobody counts   [8] 'keep' where what is over is kept all the same   [9] most OPEN deferrals ever
--   [10] most bytes stored   [11] most outcomes that are still to be told   [12] how many tasks these ask
--   then for each task two: its digest, and itself, JSON: it is stored with the first deferral that is accepted
--   then for each deferral two: the words
--     id, made by the caller: what tells a repeat   digest of client and idempotency key, or -   digest of the input
--     digest of the task   priority, 0 to 9   its boost, ms   time to review, ms   bytes of content, then 'a' for an audit, then 'c' where
--     there is a callback, then 'f' where content lies in a file: accepted only while the note <id>.file stands   subject, inputs, both or none: the content that must
--     be there; large content on its way has .up behind its name, and gets its own name here; after an end of line,
--     where it is not for everybody as the queue says, the number of its tier, 'blind' or '', and who is never asked,
--     JSON: a list of texts
--   and its body: what never changes, JSON
-- -> {'ok', JSON: a list with one of these for each}
--    ['ok', id, 1 if made now, how many are before it or -1, the limit it is over or ''] | ['refused', 'conflict', id]
--    ['refused', 'over', limit, how much there is, ms until there may be room or 0] | ['refused', 'lost', what]
-- Not allowed out of memory: it is the one script that makes the server fuller.
local TASKS, EACH = 13, 2
local FIRST = TASKS + EACH * tonumber(ARGV[12])
local WORDS = '^(%w+) ([%w-]+) (%w+) (%w+) (%d) (%d+) (%d+) (%d+)(a?)(c?)(f?) ?([^\n]*)\n?(.*)$'
local slots, depth_max, budget, keep = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8] == 'keep'
local open_max, bytes_max, untold_max = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local time, depth = clock(), call('ZCARD', K.open)
local bytes_stored, came = tonumber(call('HGET', K.load, 'bytes') or 0), 0
-- Looked up by the first that needs to know: outcomes still to be told, reviews asked for in the last hour; then what
-- this run asks for, and how long until the oldest of those asked for do not count any more, ms.
local untold, asked_before, asking, room = nil, nil, 0, 0

local function content(id, what)
  return P .. 'b:' .. id .. ':' .. what
end

-- By digest: its key, itself, whether it is stored already, and whether one that is accepted brings it.
local tasks = {}
for at = TASKS, FIRST - 1, EACH do
  local name = P .. 't:' .. ARGV[at]
  tasks[ARGV[at]] = { name = name, json = ARGV[at + 1], stored = call('EXISTS', name) == 1, brought = false }
end

-- What is asked for, and every key that it may stand on.
local asked, ids, records, contents, keys = {}, {}, {}, {}, {}
for at = FIRST, #ARGV, EACH do
  local id, idempotency, input, task, priority, boost, length, bytes, audit, called, file, brought, whom =
    string.match(ARGV[at], WORDS)
  local key = record(id)
  if idempotency == '-' then
    idempotency = ''
  else
    keys[#keys + 1] = idempotency
  end
  -- One constructor: a table that grows field by field is made anew several times.
  asked[#asked + 1] = { id = id, key = key, idempotency = idempotency, input = input, task = task, priority = priority,
    boost = boost, length = length, bytes = bytes + #ARGV[at + 1], audit = audit, called = called, file = file, contents = brought,
    whom = whom, body = ARGV[at + 1], tier = false, verdict = false }
  ids[#ids + 1], records[#records + 1] = id, key
  if file ~= '' then
    ids[#ids + 1] = id .. '.file'
  end
  for what in string.gmatch(brought, '%S+') do
    contents[#contents + 1] = content(id, what)
  end
end

-- A test of which keys are there, and whether all are. As a rule all are or none: one call tells.
local function there(names)
  local count = #names == 0 and 0 or call('EXISTS', unpack(names))
  return function(name)
    return count == #names or (count > 0 and call('EXISTS', name) == 1)
  end, count == #names
end

local made_before = there(records)
local stored, all_stored = there(contents)
-- "<id> <digest of the input>" under each idempotency key that was used, in this run too.
local used = {}
if #keys > 0 then
  local names = {}
  for number, digest in ipairs(keys) do
    names[number] = P .. 'k:' .. digest
  end
  for number, value in ipairs(call('MGET', unpack(names))) do
    used[keys[number]] = value
  end
end

-- What the idempotency key made before, nil when it is new.
local function judge_known(one)
  local value = used[one.idempotency]
  if not value then
    return nil
  end
  local cut = string.find(value, ' ', 1, true)
  local id = string.sub(value, 1, cut - 1)
  if string.sub(value, cut + 1) == one.input then
    return { 'ok', id, 0, call('ZRANK', FREE[call('HGET', record(id), 'tier')], id) or -1, '' }
  end
  return { 'refused', 'conflict', id }
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

-- What one more would bring: its content, its body, and its task where that is new.
local function weight(one)
  local task = tasks[one.task]
  return one.bytes + ((task.stored or task.brought) and 0 or #task.json)
end

-- The limit that one more would be over, how much there is, and whether it is kept all the same. The hard ones first.
local function over(one)
  if depth >= open_max and open_max > depth_max then
    return 'open_max', depth
  end
  if bytes_stored + came + weight(one) > bytes_max then
    return 'bytes_max', bytes_stored + came
  end
  if one.called ~= '' then
    untold = untold or call('ZCARD', K.outbox) + call('ZCARD', K.dead)
    if untold >= untold_max then
      return 'outbox_max', untold
    end
  end
  if depth >= depth_max then
    return 'depth_max', depth, keep and depth < open_max
  end
  if budget > 0 and one.audit == '' then
    asked_before = asked_before or count_asked()
    if asked_before + asking + slots > budget then
      return 'budget_per_hour', asked_before + asking, keep
    end
  end
  return ''
end

-- nil, and the limit it is over or '', when all is there that a deferral needs; else the refusal.
local function judge_new(one)
  local beyond, much, kept = over(one)
  if beyond ~= '' and not kept then
    return { 'refused', 'over', beyond, much, room }
  end
  for what in string.gmatch(all_stored and '' or one.contents, '%S+') do
    if not stored(content(one.id, what)) then
      return { 'refused', 'lost', what }
    end
  end
  -- Without its note the sweep may be deleting the file now.
  if one.file ~= '' and not call('ZSCORE', K.arriving, one.id .. '.file') then
    return { 'refused', 'lost', 'file' }
  end
  return nil, beyond
end

local verdicts, made, refused = {}, {}, {}
for number, one in ipairs(asked) do
  local verdict = { 'ok', one.id, 1, -1, '' }
  if not made_before(one.key) then
    local other, beyond = judge_known(one), ''
    if not other then
      other, beyond = judge_new(one)
    end
    if other then
      verdict = other
      refused[#refused + 1], refused[#refused + 2] = content(one.id, 'subject'), content(one.id, 'inputs')
    else
      one.bytes, tasks[one.task].brought = weight(one), true
      made[#made + 1], depth, came, asking = one, depth + 1, came + one.bytes, asking + slots
      one.verdict, verdict[5] = verdict, beyond
      if one.idempotency ~= '' then
        used[one.idempotency] = one.id .. ' ' .. one.input
      end
    end
  end
  verdicts[number] = verdict
end

-- Adds a member to the arguments of ZADD.
local function add(members, score, id)
  members[#members + 1] = score
  members[#members + 1] = id
end

-- After all is done: what came is counted once, not for each, and each is told how many are before the last like it.
local function account()
  local alike, counts = {}, {}
  for _, one in ipairs(made) do
    local like = one.priority .. one.tier
    local same = alike[like] or {}
    alike[like], same[#same + 1] = same, one
    counts[one.priority] = (counts[one.priority] or 0) + 1
  end
  for priority, count in pairs(counts) do
    tally(priority, count, time)
  end
  for _, same in pairs(alike) do
    local before = call('ZRANK', FREE[same[#same].tier], same[#same].id)
    for _, one in ipairs(same) do
      one.verdict[4] = before
    end
  end
  if budget > 0 then
    tally('asked', asking, time)
  end
  weigh(came)
end

-- Writes who is asked of a deferral that is not for everybody as the queue says, and how.
local function narrow(one)
  local said = cjson.decode(one.whom)
  if said[2] ~= '' then
    call('HSET', one.key, 'how', said[2])
  end
  for at = 3, #said do
    call('HSET', one.key, 'x.' .. said[at], 'excluded ' .. text(time))
  end
  if said[1] ~= '0' then
    call('HSET', one.key, 'tier', said[1])
  end
  return said[1]
end

local function make()
  local open, expiry, names, counts = { K.open }, { K.expiry }, {}, {}
  local free = { ['0'] = { K.free }, ['1'] = { K.free1 }, ['2'] = { K.free2 }, ['3'] = { K.free3 } }
  local create = text(time)
  local seq = call('INCRBY', K.seq, #made) - #made
  for _, one in ipairs(made) do
    seq = seq + 1
    local order, expire = order_of(time + one.length, one.boost, seq), text(time + one.length)
    call('HSET', one.key, 'state', 'open', 'version', 1, 'slots', slots, 'seq', seq, 'order', order, 'task', one.task,
      'key', one.idempotency, 'create_ms', create, 'expire_ms', expire, 'bytes', one.bytes, 'body', one.body)
    if one.idempotency ~= '' then
      add(names, P .. 'k:' .. one.idempotency, used[one.idempotency])
    end
    if string.find(one.contents, '.up', 1, true) then
      for what in string.gmatch(one.contents, '(%a+)%.up') do
        call('RENAME', content(one.id, what .. '.up'), content(one.id, what))
        call('PERSIST', content(one.id, what))
      end
    end
    add(open, seq, one.id)
    add(expiry, expire, one.id)
    one.tier = one.whom == '' and '0' or narrow(one)
    add(free[one.tier], order, one.id)
    counts[one.task] = (counts[one.task] or 0) + 1
  end
  for task, count in pairs(counts) do
    if tasks[task].stored then
      call('PERSIST', tasks[task].name)
    else
      call('SET', tasks[task].name, tasks[task].json)
    end
    call('HINCRBY', K.tasks, task, count)
  end
  if #names > 0 then
    call('MSET', unpack(names))
  end
  for _, index in ipairs({ open, expiry, free['0'], free['1'], free['2'], free['3'] }) do
    if #index > 1 then
      call('ZADD', unpack(index))
    end
  end
  account()
  wake(made[#made].id)
end

if #refused > 0 then
  call('UNLINK', unpack(refused))
end
-- From here on content lives as its record does.
if #contents > 0 or #ids > #asked then
  call('ZREM', K.arriving, unpack(ids))
end
if #made > 0 then
  make()
end
return { 'ok', cjson.encode(verdicts) }
