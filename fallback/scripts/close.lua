#!lua flags=allow-oom
-- close: SETTLING -> RESOLVED, each whose undo window is over. A repeat finds it RESOLVED: no request id.
--   ARGV[5] retention, ms   [6..] ids
-- -> {'ok', for each {'ok', version} | {'refused', unknown, ended state, early when, broken}, ...}
local time = clock()

local function close(id)
  local refusal = judge_state(id, 'settling')
  if refusal then
    return refusal
  end
  local due = call('ZSCORE', K.settling, id)
  if due and tonumber(due) > time then
    return { 'refused', 'early', due }
  end
  local outcome, event, version, seq, task = unpack(call('HMGET', record(id), 'outcome', 'event', 'version', 'seq', 'task'))
  -- All that ending it writes is there, or it is left as it is: those after it are ended all the same.
  if not (outcome and event and version and seq and task) then
    return { 'refused', 'broken' }
  end
  return { 'ok', finish(id, 'resolved', outcome, event, time, tonumber(ARGV[5])) }
end

local reply = { 'ok' }
for at = 6, #ARGV do
  reply[#reply + 1] = close(ARGV[at])
end
return reply
