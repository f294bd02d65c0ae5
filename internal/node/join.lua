-- Enters the queue of a lock key, or renews a place in it, and takes the key if it is our turn.
-- KEYS: the lock's key. ARGV: token, number of this call, order, channel, window and lease in ms.
-- Returns {1} if the key is ours, for at least window from now.
-- Returns {0, remaining ttl of the key in ms, token of its owner} if we wait.
-- A key of another type is another owner's.
--- queue.lua
local token = ARGV[1]
local owner = redis.pcall('GET', KEYS[1])
if type(owner) == 'table' and owner.err and not string.find(owner.err, 'WRONGTYPE', 1, true) then
  return owner
end
if owner == token then
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[5])
  end
  return {1}
end
enter(token, ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
if owner then
  return queued(owner)
end
if first() == token then
  drop(token)
  redis.call('SET', KEYS[1], token, 'PX', ARGV[5])
  return {1}
end
owner = grant(token)
if not owner then -- the others are dead
  drop(token)
  redis.call('SET', KEYS[1], token, 'PX', ARGV[5])
  return {1}
end
return queued(owner)
