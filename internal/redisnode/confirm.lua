-- Raises the counters of a lock's keys to its fence, where all keys are its owner's.
-- KEYS: the lock's keys, then their counters. ARGV: token, fence, retention in ms.
-- Returns what the counters are after that, or 0 if any key is not ours (nothing is changed then). A key of another type
-- is another owner's.
--- fence.lua
local n = #KEYS / 2
for i = 1, n do
  local owner = redis.pcall('GET', KEYS[i])
  if type(owner) == 'table' and owner.err and not string.find(owner.err, 'WRONGTYPE', 1, true) then
    return owner
  end
  if owner ~= ARGV[1] then
    return 0
  end
end
return raise(n + 1, 2 * n, ARGV[2], 0, ARGV[3])
