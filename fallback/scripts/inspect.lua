#!lua flags=no-writes
-- inspect: compares records with indexes, for the deferrals ARGV[5..], in one step. Changes nothing.
-- -> {'ok', problem, ...}
local reply = { 'ok' }

local function expect(id, what, wanted, got)
  if wanted ~= got then
    reply[#reply + 1] = id .. ': ' .. what .. ': expected ' .. tostring(wanted) .. ', got ' .. tostring(got)
  end
end

local function stands(index, id)
  return call('ZSCORE', index, id) and true or false
end

for at = 5, #ARGV do
  local id = ARGV[at]
  local key = record(id)
  local state = call('HGET', key, 'state')
  local open, settling = state == 'open', state == 'settling'
  local free, held = 0, 0
  if open then
    free, held = count_slots(key)
    for slot = 0, slots_of(key) - 1 do
      local is_held = slot_state(key, slot) == 'held'
      expect(id, 'slot ' .. slot .. ' in leases', is_held, stands(K.leases, id .. ':' .. slot))
      local holder = call('HGET', key, 's' .. slot .. '.holder')
      if holder then
        expect(id, 'slot ' .. slot .. ' in holds', is_held, stands(K.holds, hold(holder, id, slot)))
      end
    end
  end
  expect(id, 'in open', open or settling, stands(K.open, id))
  expect(id, 'in expiry', open, stands(K.expiry, id))
  local tier = call('HGET', key, 'tier') or '0'
  for number, name in ipairs({ 'free', 'free1', 'free2', 'free3' }) do
    expect(id, 'in ' .. name, open and free > 0 and tier == text(number - 1), stands(K[name], id))
  end
  expect(id, 'in held', open and free == 0 and held > 0, stands(K.held, id))
  expect(id, 'in full', open and free + held == 0, stands(K.full, id))
  expect(id, 'in settling', settling, stands(K.settling, id))
  if not open then
    expect(id, 'drafts', 0, call('EXISTS', drafts(id)))
  end
  expect(id, 'holding', held, tonumber(call('HGET', K.holding, id) or 0))
  for _, ended in ipairs({ 'resolved', 'expired', 'cancelled' }) do
    -- A record whose retention is over is gone a moment before its entry is.
    if state then
      expect(id, 'in ' .. ended, state == ended, stands(K[ended], id))
    end
  end
end
expect('holds', 'leases', call('ZCARD', K.leases), call('ZCARD', K.holds))
return reply
