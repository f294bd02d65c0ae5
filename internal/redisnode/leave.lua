-- Releases a lock key and leaves its queue: gives the key, if it is ours, to the first waiter, or deletes it.
-- KEYS: as queue.lua says. ARGV[1]: token.
-- Returns 1 if the key was ours, and 0 otherwise. A key of another type is another owner's.
local owner = redis.pcall('GET', KEYS[1])
if type(owner) == 'table' and owner.err and not string.find(owner.err, 'WRONGTYPE', 1, true) then
  return owner
end
local ours = owner == ARGV[1]
-- The key is released even if the queue is broken.
if redis.pcall('EXISTS', KEYS[2]) ~= 1 then
  return ours and redis.call('DEL', KEYS[1]) or 0
end
local function leave()
--- queue.lua
  drop(ARGV[1])
  return ours and grant()
end
local ok, granted = pcall(leave)
if ours and not (ok and granted) then
  redis.call('DEL', KEYS[1])
end
return ours and 1 or 0
