#!lua
-- draft: keeps a holder's unfinished work beside the deferral, in place of what they kept before. Changes no state.
--   ARGV[5] id   [6] slot   [7] generation   [8] nonce   [9] reviewer   [10] draft, JSON
--   [11] most bytes of drafts in the queue
-- -> {'ok'} | refused: erased, drafts bytes, see judge
-- Not allowed out of memory: it makes the server fuller.
local DRAFTS_MAX = 32

local kept = replay()
if kept then
  return kept
end
local id, slot, reviewer = ARGV[5], ARGV[6], ARGV[9]
local refusal = judge(id, slot, tonumber(ARGV[7]), ARGV[8], reviewer, clock())
if refusal then
  return refusal
end
-- It may say what was in the content, and nobody would come to erase it again.
if call('HEXISTS', record(id), 'erased') == 1 then
  return { 'refused', 'erased' }
end
local before = call('HSTRLEN', drafts(id), draft_of(id, reviewer))
local stored = tonumber(call('HGET', K.load, 'drafts') or 0)
if stored - before + #ARGV[10] > tonumber(ARGV[11]) then
  return { 'refused', 'drafts', stored }
end
forget_drafts(id, reviewer)
if call('HLEN', drafts(id)) >= DRAFTS_MAX then
  -- Somebody's who no longer holds a place; there are fewer places than drafts.
  for _, field in ipairs(call('HKEYS', drafts(id))) do
    local of, by = string.match(field, '^(%d+):(.*)$')
    local now = call('HMGET', record(id), 's' .. of .. '.state', 's' .. of .. '.holder')
    if now[1] ~= 'held' or now[2] ~= by then
      forget_draft(id, field)
      break
    end
  end
end
call('HSET', drafts(id), slot .. ':' .. reviewer, ARGV[10])
call('HINCRBY', K.load, 'drafts', #ARGV[10])
return remember({ 'ok' })
