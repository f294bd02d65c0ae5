-- Ends the node's quarantine.
--- guard.lua
local run, history = identity()
mark(run, history, turns(), '0')
return 1
