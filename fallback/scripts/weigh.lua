#!lua flags=no-writes
-- weigh: the bytes that the records ARGV[5..] say they brought, and of the drafts beside them. Changes nothing.
-- -> {'ok', bytes brought, bytes of drafts}
local content, unfinished = 0, 0
for at = 5, #ARGV do
  content = content + tonumber(call('HGET', record(ARGV[at]), 'bytes') or 0)
  for _, field in ipairs(call('HKEYS', drafts(ARGV[at]))) do
    unfinished = unfinished + call('HSTRLEN', drafts(ARGV[at]), field)
  end
end
return { 'ok', content, unfinished }
