#!lua flags=allow-oom
-- delivered: the outcome of ARGV[5] was told; its row goes, also when another attempt is under way. A repeat changes
-- nothing: no request id.
-- -> {'ok', 1 if there was a row}
return { 'ok', call('ZREM', K.outbox, ARGV[5]) + call('ZREM', K.dead, ARGV[5]) }
