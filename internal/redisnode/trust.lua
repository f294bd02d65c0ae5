-- Ends the node's quarantine. KEYS: the marker. Returns 1.
--- guard.lua
local run, history = identity()
mark(1, run, history, turns(), '0')
return 1
