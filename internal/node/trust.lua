-- Ends the node's quarantine.
--- guard.lua
redis.call('SET', marker, run() .. ' 0')
return 1
