#!lua flags=allow-oom
-- claim: takes up to ARGV[5] outcomes that are due to be told; each is due again ARGV[6] ms from now unless the
-- caller says before how it went. Half of them are due the longest, half came due last: a pile for a receiver that is
-- down keeps nothing fresh waiting, and is not forgotten either.
-- -> {'ok', {id, the record as JSON}, ...}
local function with_records(reply)
  for at = 2, #reply do
    reply[at][2] = described(reply[at][1])
  end
  return reply
end

local kept = replay()
if kept then
  return with_records(kept)
end
local time, reply = clock(), { 'ok' }

local function take(ids)
  for _, id in ipairs(ids) do
    if call('EXISTS', record(id)) == 1 then
      call('ZADD', K.outbox, text(time + tonumber(ARGV[6])), id)
      call('HINCRBY', record(id), 'attempt', 1)
      reply[#reply + 1] = { id }
    else
      call('ZREM', K.outbox, id)
    end
  end
end

local fresh = math.floor(tonumber(ARGV[5]) / 2)
take(call('ZRANGE', K.outbox, '-inf', text(time), 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[5]) - fresh))
take(call('ZRANGE', K.outbox, text(time), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, fresh))
if #reply == 1 then
  return reply
end
return with_records(remember(reply))
