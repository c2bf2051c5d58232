#!lua
-- write: a shared document, if it still is at the revision that the writer read.
--   ARGV[5] its key   [6] body   [7] expected revision, 0 where there must be none, '' not compared
--   [8] most documents
-- -> {'ok', revision} | refused: changed revision, full how many
local kept = replay()
if kept then
  return kept
end
local key = ARGV[5]
local known = call('HGET', K.bodies, key)
local revision = known and tonumber(string.match(known, '^%d+')) or 0
if ARGV[7] ~= '' and tonumber(ARGV[7]) ~= revision then
  return { 'refused', 'changed', revision }
end
local count = call('HLEN', K.bodies)
if not known and count >= tonumber(ARGV[8]) then
  return { 'refused', 'full', count }
end
call('HSET', K.bodies, key, text(revision + 1) .. ' ' .. ARGV[6])
call('XADD', K.changes, 'MAXLEN', '~', 64, '*', 'key', key)
return remember({ 'ok', revision + 1 })
