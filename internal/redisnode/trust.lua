-- Ends the node's quarantine. Returns 1.
--- guard.lua
local run, history = identity()
mark(run, history, turns(), '0')
return 1
