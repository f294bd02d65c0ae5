-- Deletes the keys that are ours, each independently of the others.
-- KEYS: the lock's keys. ARGV[1]: token.
-- Returns how many were deleted. A key of another type is another owner's.
local deleted = 0
for _, key in ipairs(KEYS) do
  local owner = redis.pcall('GET', key)
  if type(owner) == 'table' and owner.err and not string.find(owner.err, 'WRONGTYPE', 1, true) then
    return owner
  end
  if owner == ARGV[1] then
    deleted = deleted + redis.call('DEL', key)
  end
end
return deleted
