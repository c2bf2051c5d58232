#!lua flags=no-writes
-- holders: how many reviewers hold something, counted up to ARGV[5]. Changes nothing.
-- -> {'ok', how many}
local from, count = '-', 0
while count < tonumber(ARGV[5]) do
  local found = call('ZRANGE', K.holds, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
  if not found then
    break
  end
  count = count + 1
  from = '(' .. string.match(found, '^(.-)%z') .. '\1'
end
return { 'ok', count }
