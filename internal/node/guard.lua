-- The restart guard. A node's marker says which run of the server it is for, and since when, by the server's clock. It is
-- missing, or another run's, after a restart, a failover or a FLUSHALL: the node may have forgotten what it granted. A
-- server that was a replica for a while and is a master again has the same run_id, but the data of another one. So a run
-- ends there, too: master_replid2 is whose data it was.
local marker = 'redlock:guard'

local function run()
  local id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or error('INFO server tells no run_id')
  return id .. (string.match(redis.call('INFO', 'replication'), 'master_replid2:(%w+)') or '')
end

-- For how many ms more the node must not vote, if it must not for quarantine ms after a loss of data; '0' is no guard.
local function quarantined(quarantine)
  if quarantine == '0' then
    return 0
  end
  local id, time = run(), redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local known, since = string.match(redis.call('GET', marker) or '', '^(%w+) (%d+)$')
  if known ~= id then
    since = now
    redis.call('SET', marker, id .. ' ' .. string.format('%.0f', now))
  end
  return math.max(0, since + quarantine - now)
end
