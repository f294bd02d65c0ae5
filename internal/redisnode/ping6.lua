-- Asks a server before Redis 7 what ping.lua asks: SET with XX does nothing to a key that does not exist, but is refused
-- where any SET is. A user that may not access this key may still access the keys of locks.
-- KEYS: none, so that only this script checks access to the key. ARGV: the key.
local answer = redis.pcall('SET', ARGV[1], '-', 'XX', 'PX', '1')
if type(answer) == 'table' and answer.err and not string.find(answer.err, 'at least one of the keys', 1, true) then
  return answer
end
return 1
