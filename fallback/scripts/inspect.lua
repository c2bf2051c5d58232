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
  local slots = slots_of(key, { 'state', 'holder' })
  local free, held = count_states(open and slots or {})
  -- By reviewer: a slot names the last one it had, who may have answered in another since.
  local holds, answered = {}, {}
  for number, slot in ipairs(slots) do
    local is_held = open and slot[1] == 'held'
    expect(id, 'slot ' .. number - 1 .. ' in leases', is_held, stands(K.leases, id .. ':' .. number - 1))
    if slot[2] then
      holds[slot[2]] = holds[slot[2]] or is_held
      answered[slot[2]] = answered[slot[2]] or ((open or settling) and slot[1] == 'filled')
    end
  end
  for reviewer, is_held in pairs(holds) do
    expect(id, reviewer .. ' in holds', is_held, stands(K.holds, hold(reviewer, id)))
    expect(id, reviewer .. ' in answered', answered[reviewer], stands(K.answered, hold(reviewer, id)))
  end
  expect(id, 'in open', open or settling, stands(K.open, id))
  expect(id, 'in expiry', open, stands(K.expiry, id))
  local tier = call('HGET', key, 'tier') or '0'
  for number, index in ipairs({ K.free, K.free1, K.free2, K.free3 }) do
    local name = number == 1 and 'free' or 'free' .. number - 1
    expect(id, 'in ' .. name, open and free > 0 and tier == text(number - 1), stands(index, id))
  end
  expect(id, 'in held', open and free == 0 and held > 0, stands(K.held, id))
  expect(id, 'in full', open and free + held == 0, stands(K.full, id))
  expect(id, 'in settling', settling, stands(K.settling, id))
  -- While an answer can be taken back, others may be asked again.
  if not open and not settling then
    expect(id, 'drafts', 0, call('EXISTS', drafts(id)))
  end
  for ended, index in pairs({ resolved = K.resolved, expired = K.expired, cancelled = K.cancelled }) do
    -- A record whose retention is over is gone a moment before its entry is.
    if state then
      expect(id, 'in ' .. ended, state == ended, stands(index, id))
    end
  end
end
expect('holds', 'leases', call('ZCARD', K.leases), call('ZCARD', K.holds))
return reply
