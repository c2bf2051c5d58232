#!lua
-- park: accepts deferrals, whose content is already stored, and makes their records; or finds the one that the
-- idempotency key made before. All are judged, in order, then all that are accepted are written: what costs is the
-- call, so a run asks once what is there and writes each index once.
--   ARGV[5] slots at first   [6] most OPEN deferrals
--   then for each deferral two: the words
--     id, made by the caller: what tells a repeat   digest of client and idempotency key, or -   digest of the input
--     digest of the task   priority, 0 to 9   time to review, ms   subject, inputs, both or none: the content that must
--     be there; large content on its way has .up behind its name, and gets its own name here
--   and its body: what never changes, JSON
-- -> {'ok', JSON: a list with one of these for each}
--    ['ok', id, 1 if made now] | ['refused', 'conflict', id] | ['refused', 'full', depth] | ['refused', 'lost', what]
-- Not allowed out of memory: it is the one script that makes the server fuller.
local FIRST, EACH = 7, 2
local WORDS = '^(%w+) ([%w-]+) (%w+) (%w+) (%d) (%d+) ?(.*)$'
local slots, depth_max = ARGV[5], tonumber(ARGV[6])
local time, depth = clock(), call('ZCARD', K.open)

local function content(id, what)
  return P .. 'b:' .. id .. ':' .. what
end

-- What is asked for, and every key that it may stand on.
local asked, ids, records, contents, tasks, keys = {}, {}, {}, {}, {}, {}
for at = FIRST, #ARGV, EACH do
  local one = { body = ARGV[at + 1] }
  one.id, one.idempotency, one.input, one.task, one.priority, one.length, one.contents = string.match(ARGV[at], WORDS)
  one.key = record(one.id)
  asked[#asked + 1], ids[#ids + 1], records[#records + 1], tasks[one.task] = one, one.id, one.key, P .. 't:' .. one.task
  for what in string.gmatch(one.contents, '%S+') do
    contents[#contents + 1] = content(one.id, what)
  end
  if one.idempotency == '-' then
    one.idempotency = ''
  else
    keys[#keys + 1] = one.idempotency
  end
end

-- A test of which keys are there. As a rule all are or none: one call tells.
local function there(names)
  local count = #names == 0 and 0 or call('EXISTS', unpack(names))
  return function(name)
    return count == #names or (count > 0 and call('EXISTS', name) == 1)
  end
end

local made_before, stored = there(records), there(contents)
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
for digest, name in pairs(tasks) do
  tasks[digest] = call('EXISTS', name) == 1 and name or nil
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
    return { 'ok', id, 0 }
  end
  return { 'refused', 'conflict', id }
end

-- nil when all is there that a deferral needs, else the refusal.
local function judge_new(one)
  if depth >= depth_max then
    return { 'refused', 'full', depth }
  end
  for what in string.gmatch(one.contents, '%S+') do
    if not stored(content(one.id, what)) then
      return { 'refused', 'lost', what }
    end
  end
  return not tasks[one.task] and { 'refused', 'lost', 'task' } or nil
end

local verdicts, made, refused = {}, {}, {}
for number, one in ipairs(asked) do
  local verdict = { 'ok', one.id, 1 }
  if not made_before(one.key) then
    local other = judge_known(one) or judge_new(one)
    if other then
      verdict = other
      refused[#refused + 1], refused[#refused + 2] = content(one.id, 'subject'), content(one.id, 'inputs')
    else
      made[#made + 1], depth = one, depth + 1
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

local function make()
  local open, expiry, free, names, counts = { K.open }, { K.expiry }, { K.free }, {}, {}
  local create = text(time)
  local seq = call('INCRBY', K.seq, #made) - #made
  for _, one in ipairs(made) do
    seq = seq + 1
    -- Priority first, then age; below 2^53, so exact as a score.
    local order, expire = text((9 - one.priority) * 2 ^ 44 + seq), text(time + one.length)
    call('HSET', one.key, 'state', 'open', 'version', 1, 'slots', slots, 'seq', seq, 'order', order, 'task', one.task,
      'key', one.idempotency, 'create_ms', create, 'expire_ms', expire, 'body', one.body)
    if one.idempotency ~= '' then
      add(names, P .. 'k:' .. one.idempotency, used[one.idempotency])
    end
    for what in string.gmatch(one.contents, '(%a+)%.up') do
      call('RENAME', content(one.id, what .. '.up'), content(one.id, what))
      call('PERSIST', content(one.id, what))
    end
    add(open, seq, one.id)
    add(expiry, expire, one.id)
    add(free, order, one.id)
    counts[one.task] = (counts[one.task] or 0) + 1
  end
  for task, count in pairs(counts) do
    call('PERSIST', tasks[task])
    call('HINCRBY', K.tasks, task, count)
  end
  if #names > 0 then
    call('MSET', unpack(names))
  end
  for _, index in ipairs({ open, expiry, free }) do
    call('ZADD', unpack(index))
  end
  wake(made[#made].id)
end

if #refused > 0 then
  call('UNLINK', unpack(refused))
end
-- From here on content lives as its record does.
if #contents > 0 then
  call('ZREM', K.arriving, unpack(ids))
end
if #made > 0 then
  make()
end
return { 'ok', cjson.encode(verdicts) }
