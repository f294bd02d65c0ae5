-- Acquires every key for one owner, all or none.
-- KEYS: the lock's keys; if it has a fence, then their counters; if it has a guard, then the marker.
-- ARGV: token, ttl in ms, number of keys, floor of the fence (0: none), retention of the counters in ms, quarantine in ms
-- (0: no guard).
-- Returns {0, token of the owner} if any key is another owner's, or an earlier call has acquired all of them for us. Nothing
-- is changed then. A key of another type is another owner's, who has no token. If the keys were free, and are now ours,
-- returns the fence, or 1 without one. Below 0, the answer is how many more ms the node must not vote.
local n, left, ours = tonumber(ARGV[3]), 0, 0
if ARGV[6] ~= '0' then
--- guard.lua
  left = quarantined(#KEYS, ARGV[6])
end
for i = 1, n do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local owner = redis.pcall('GET', KEYS[i])
    if owner ~= ARGV[1] then
      return {0, type(owner) == 'string' and owner or ''}
    end
    ours = ours + 1
  end
end
if ours == n then
  return {0, ARGV[1]}
end
if left > 0 then
  return -left
end
local fence = 1
if ARGV[4] ~= '0' then
--- fence.lua
  fence = raise(n + 1, 2 * n, ARGV[4], 1, ARGV[5])
end
for i = 1, n do
  redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
end
return fence
