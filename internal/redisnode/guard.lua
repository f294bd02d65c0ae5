-- The restart guard. A node's marker, which is KEYS[marker], names the run and the history of its server, and when its quarantine began, by the
-- server's clock. After a restart, a failover or a FLUSHALL it is missing, or names another run: the node may have forgotten
-- what it granted. A server that was a replica for a while and is a master again has the same run_id, but another server's
-- data and another history, master_replid: a server that becomes a replica takes over its master's, and one that becomes a
-- master makes a new one and keeps the old as master_replid2.
--
-- A healthy master makes a new history too: when it has had no replica for repl-backlog-ttl, and when the first one comes
-- after that. Then it no longer has a master_replid2. A server that was a replica has none either after that time, but it has
-- since run one of the commands that make a replica of a server. (CONFIG RESETSTAT counts them from 0 again.)

local function identity()
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or error('INFO server tells no run_id')
  local replication = redis.call('INFO', 'replication')
  return run, string.match(replication, 'master_replid:(%w+)') or '', string.match(replication, 'master_replid2:(%w+)') or ''
end

-- How often the server has run a command that may make it a replica.
local function turns()
  local stats, n = redis.call('INFO', 'commandstats'), 0
  for _, command in ipairs({'replicaof', 'slaveof', 'failover'}) do
    n = n + (string.match(stats, 'cmdstat_' .. command .. ':calls=(%d+)') or 0)
  end
  return string.format('%.0f', n)
end

local function mark(marker, run, history, turned, since)
  redis.call('SET', KEYS[marker], run .. '-' .. history .. '-' .. turned .. ' ' .. since)
end

-- Returns how many more ms the node must not vote. After a loss of data it must not for quarantine ms; '0': no guard.
local function quarantined(marker, quarantine)
  if quarantine == '0' then
    return 0
  end
  local time, run, history, before = redis.call('TIME'), identity()
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local its, known, turned, since = string.match(redis.call('GET', KEYS[marker]) or '', '^(%w+)-(%w*)-(%d+) (%d+)$')
  if its ~= run or known ~= history then
    local turn = turns()
    if its ~= run or turned ~= turn or not string.match(before, '^0+$') then
      since = string.format('%.0f', now)
    end
    mark(marker, run, history, turn, since)
  end
  return math.max(0, since + quarantine - now)
end
