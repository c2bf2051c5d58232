#!lua flags=no-writes
-- weigh: the bytes of content, and of drafts, that stand beside the deferrals ARGV[5..]. Changes nothing.
-- -> {'ok', bytes of content, bytes of drafts}
local content, unfinished = 0, 0
for at = 5, #ARGV do
  content = content + weight(ARGV[at])
  for _, field in ipairs(call('HKEYS', drafts(ARGV[at]))) do
    unfinished = unfinished + call('HSTRLEN', drafts(ARGV[at]), field)
  end
end
return { 'ok', content, unfinished }
