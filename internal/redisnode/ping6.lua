-- Asks a server before Redis 7 what ping.lua asks: SET with XX does nothing to a key that does not exist, but is refused
-- where any SET is. A user that may not access this key may still access the keys of locks.
-- KEYS: none, unlike every other script (invariant 15): the server would refuse a script that declares the key to a user who may
-- not access it, before it has told whether it takes writes. A server that insists on declared keys knows ping.lua. ARGV: the key.
local answer = redis.pcall('SET', ARGV[1], '-', 'XX', 'PX', '1')
if type(answer) == 'table' and answer.err and not string.find(answer.err, 'at least one of the keys', 1, true) then
  return answer
end
return 1
