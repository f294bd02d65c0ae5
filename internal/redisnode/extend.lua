-- Makes every key of one owner live for at least ttl from now, and sets missing ones again.
-- KEYS: the lock's keys; if it has a guard, then the marker. ARGV: token, ttl in ms, quarantine in ms (0: no guard).
-- Returns 1 if all were ours: the only answer that counts for a quorum.
-- Returns 2 if some were missing and none is another's: they are ours again, from now on.
-- Returns 0 if any is held by another owner (nothing is changed then); a key of another type is.
-- Returns, below 0, how many more ms the node must not vote, if some were missing and it may have forgotten whose they were
-- (nothing is changed then).
local n, gone = ARGV[3] == '0' and #KEYS or #KEYS - 1, {}
for i = 1, n do
  local owner = redis.pcall('GET', KEYS[i])
  if type(owner) == 'table' and owner.err then
    if string.find(owner.err, 'WRONGTYPE', 1, true) then
      return 0
    end
    return owner
  end
  if not owner then
    gone[i] = true
  elseif owner ~= ARGV[1] then
    return 0
  end
end
if next(gone) and ARGV[3] ~= '0' then
--- guard.lua
  local left = quarantined(#KEYS, ARGV[3])
  if left > 0 then
    return -left
  end
end
for i = 1, n do
  if gone[i] then
    redis.call('SET', KEYS[i], ARGV[1], 'PX', ARGV[2])
  elseif redis.call('PTTL', KEYS[i]) < tonumber(ARGV[2]) then -- never shorter: an old extension may come late
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
  end
end
if next(gone) then
  return 2
end
return 1
