-- Enters the queue of a lock key, or renews our entry in it, and acquires the key if it is our turn.
-- KEYS: as queue.lua says. ARGV: token, number of this call, order, how long we have waited in ms, channel as push takes
-- it, nonce, window and lease in ms, floor of the fence (0: none), retention of the counter in ms, quarantine in ms (0: no guard).
-- Returns {1, fence} if the key is ours, for at least window from now; without a fence that is 0.
-- Returns {0, remaining ttl of the key in ms, how many are before us, token of its owner} if we wait. The key may be free then:
-- it is the turn of a waiter with a guard, which was told to join again.
-- Returns {-1, ms} if the node must not vote for so long: then we have no entry.
-- A key of another type is another owner's.
--- queue.lua
local token, terms = ARGV[1], table.concat(ARGV, ' ', 9, 11)
local owner = redis.pcall('GET', KEYS[1])
if type(owner) == 'table' and owner.err and not string.find(owner.err, 'WRONGTYPE', 1, true) then
  return owner
end
local left = quarantined(5, ARGV[11])
if left > 0 then
  drop(token)
  return {-1, left}
end
if owner == token then
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[7]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[7])
  end
  -- The fence is at least that of a claim that acquires the key now: the call that acquired it may have been a late one.
  return {1, ARGV[9] == '0' and 0 or raise(4, 4, ARGV[9], 0, ARGV[10])}
end
enter(token, ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], terms)
if owner then
  return queued(token, owner)
end
if first() ~= token then
  owner = grant(token)
  if owner then
    return queued(token, owner)
  end
end
drop(token) -- the other waiters are dead
return {1, give(token, ARGV[7], terms)}
