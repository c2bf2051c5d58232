#!lua flags=allow-oom
-- submit: HELD -> FILLED with the reviewer's answer; their draft is done with, those of others stay:
-- who lost this place may be asked in another. What the reviews add up to is decided outside, before or after: where the
-- caller knew all others and this one decides, it says so, and the deferral is settled in the same step unless something
-- came in since.
--   ARGV[5] id   [6] slot   [7] generation   [8] nonce   [9] reviewer   [10] answer, JSON   [11] comment
--   [12] the version that the other reviews were read at, or ''   [13] outcome   [14] event   [15] retention, ms
--   [16] the undo window, ms; see settle
-- -> {'ok', version, the record as JSON} | refused: see judge
local kept = replay()
if kept then
  return with_record(kept, ARGV[5])
end
local id, field, time = ARGV[5], 's' .. ARGV[6], clock()
local key = record(id)
local refusal, since, version = judge(id, ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9], time)
if refusal then
  return refusal
end
local review = { field .. '.state', 'filled', field .. '.answer', ARGV[10], field .. '.comment', ARGV[11],
  field .. '.create_ms', text(time) }
local decides = version == tonumber(ARGV[12] or '')
version = version + 1
call('ZREM', K.leases, id .. ':' .. ARGV[6])
call('ZREM', K.holds, hold(ARGV[9], id))
tally('reviews', 1, time)
tally('hold', math.max(1, time - since), time)
local ended = false
if decides then
  version, ended = settle(id, ARGV[13], ARGV[14], tonumber(ARGV[15]), tonumber(ARGV[16]), time, tonumber(ARGV[6]),
    version, review)
else
  call('HSET', key, 'version', version, unpack(review))
  place(id, key)
end
-- Where all is over, all drafts are.
if not ended then
  call('ZADD', K.answered, 0, hold(ARGV[9], id))
  forget_drafts(id, ARGV[9])
end
return with_record(remember({ 'ok', version }), id)
