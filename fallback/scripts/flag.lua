#!lua
-- flag: a word for the review managers from somebody who holds or answered the deferral. Changes no state.
--   ARGV[5] id   [6] reviewer   [7] comment
-- -> {'ok', how many} | refused: unknown, stranger, flagged how many
-- Not allowed out of memory: it makes the server fuller.
local FLAGS_MAX = 20

local kept = replay()
if kept then
  return kept
end
local id, reviewer = ARGV[5], ARGV[6]
local key = record(id)
local found = call('HMGET', key, 'slots', 'flags', 'seq')
if not found[1] then
  return { 'refused', 'unknown' }
end
local known = false
for slot = 0, tonumber(found[1]) - 1 do
  local values = call('HMGET', key, 's' .. slot .. '.state', 's' .. slot .. '.holder')
  known = known or (values[1] ~= 'free' and values[2] == reviewer)
end
if not known then
  return { 'refused', 'stranger' }
end
local count = tonumber(found[2] or 0)
if count >= FLAGS_MAX then
  return { 'refused', 'flagged', count }
end
call('HSET', key, 'flag.' .. count, cjson.encode({ reviewer, ARGV[7], text(clock()) }), 'flags', count + 1)
call('ZADD', K.flagged, found[3], id)
return remember({ 'ok', count + 1 })
