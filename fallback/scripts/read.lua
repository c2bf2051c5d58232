#!lua flags=no-writes
-- read: the records of the deferrals ARGV[5..], as they stand. Changes nothing.
-- -> {'ok', the record as JSON or nil, ...}
local reply = { 'ok' }
for at = 5, #ARGV do
  reply[#reply + 1] = described(ARGV[at])
end
return reply
