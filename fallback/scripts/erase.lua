#!lua flags=allow-oom
-- erase: subject, inputs and drafts of a deferral go, in whatever state it is; its record, with the digests, stays.
-- What lies in a folder is the caller's to delete. Changes no state.
--   ARGV[5] id   [6] sha256 of the inputs, hex, or ''
-- -> {'ok', when, ms} | refused: unknown
local kept = replay()
if kept then
  return kept
end
local id = ARGV[5]
local key = record(id)
if call('EXISTS', key) == 0 then
  return { 'refused', 'unknown' }
end
call('HSETNX', key, 'erased', text(clock()))
-- What is left of it is counted on.
local bytes, left = tonumber(call('HGET', key, 'bytes') or 0), call('HSTRLEN', key, 'body')
weigh(left - bytes)
call('HSET', key, 'bytes', left)
for _, field in ipairs(call('HKEYS', drafts(id))) do
  forget_draft(id, field)
end
call('UNLINK', P .. 'b:' .. id .. ':subject', P .. 'b:' .. id .. ':inputs')
if ARGV[6] ~= '' then
  call('HSET', K.erased, id, ARGV[6])
end
return remember({ 'ok', call('HGET', key, 'erased') })
