#!lua flags=allow-oom
-- lapse: HELD -> FREE for up to ARGV[5] leases whose time is over. A repeat finds the next ones: no request id.
-- -> {'ok', how many}
return { 'ok', lapse(clock(), tonumber(ARGV[5])) }
