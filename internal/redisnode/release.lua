-- Deletes the keys that are ours, each independently of the others.
-- KEYS: the lock's keys. ARGV[1]: token.
-- Returns how many were deleted. A key of another type is another owner's.
local deleted = 0
for i = 1, #KEYS do
  local owner = redis.pcall('GET', KEYS[i])
  if type(owner) == 'table' and owner.err and not string.find(owner.err, 'WRONGTYPE', 1, true) then
    return owner
  end
  if owner == ARGV[1] then
    deleted = deleted + redis.call('DEL', KEYS[i])
  end
end
return deleted
