-- Takes every key for one owner, all or nothing.
-- KEYS: the lock's keys; if it has a fence, then their counters.
-- ARGV: token, ttl in ms, number of keys, floor of the fence (0: none), retention of the counters in ms, quarantine in ms
-- (0: no guard).
-- Returns {0, token of its owner} if any key was held, and nothing is changed then; if all were free and are now ours, the
-- fence, or 1 without one; and, below 0, for how many ms more the node must not vote. A key of another type is another
-- owner's, who has no token.
local n, left = tonumber(ARGV[3]), 0
if ARGV[6] ~= '0' then
--- guard.lua
  left = quarantined(ARGV[6])
end
for i = 1, n do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local owner = redis.pcall('GET', KEYS[i])
    return {0, type(owner) == 'string' and owner or ''}
  end
end
if left > 0 then
  return -left
end
local fence = 1
if ARGV[4] ~= '0' then
--- fence.lua
  fence = raise(KEYS, n + 1, ARGV[4], 1, ARGV[5])
end
for i = 1, n do
  redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
end
return fence
