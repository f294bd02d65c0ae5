-- Deletes those of the keys that are ours, each on its own.
-- KEYS: the lock's keys. ARGV[1]: token.
-- Returns how many were deleted.
local deleted = 0
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    deleted = deleted + redis.call('DEL', key)
  end
end
return deleted
