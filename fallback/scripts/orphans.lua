#!lua flags=allow-oom
-- orphans: forgets the content of up to ARGV[5] deferrals that were not accepted within ARGV[6] ms of when this first saw
-- that they were on their way. <id>.file notes a file: without the note it is not accepted, and the sweep deletes it. A repeat finds the next ones: no request id.
-- -> {'ok', how many, new ones or forgotten, whichever are more}
local time, limit = clock(), tonumber(ARGV[5])
-- Who announces content has no clock: the server's begins here.
local new = call('ZRANGE', K.arriving, 0, 0, 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(new) do
  call('ZADD', K.arriving, text(time), id)
end
local over = call('ZRANGE', K.arriving, 1, text(time - tonumber(ARGV[6])), 'BYSCORE', 'LIMIT', 0, limit)
for _, id in ipairs(over) do
  -- A repeat that never reached its script leaves a note, too.
  if call('EXISTS', record(id)) == 0 then
    call('UNLINK', P .. 'b:' .. id .. ':subject', P .. 'b:' .. id .. ':inputs')
  end
  call('ZREM', K.arriving, id)
end
return { 'ok', math.max(#new, #over) }
