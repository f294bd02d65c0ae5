-- The queue of a lock key, for join.lua and leave.lua.
-- KEYS: the lock's key; its queue: the tokens that wait, in order; its waiters: an entry for each of them; the counter of its
-- fences; if the caller has a guard, the marker.
--- guard.lua
--- fence.lua
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function drop(token)
  redis.call('ZREM', KEYS[2], token)
  redis.call('HDEL', KEYS[3], token)
end

-- The first waiter with a valid lease, other than the one to skip. Waiters whose lease has ended are dropped.
local function first(skip)
  local rank = 0
  while true do
    local token = redis.call('ZRANGE', KEYS[2], rank, rank)[1]
    if not token then
      return nil
    end
    if token == skip then
      rank = rank + 1
    else
      local number, lease, window, nonce, terms, channel =
        string.match(redis.call('HGET', KEYS[3], token) or '', '^(%d+) (%d+) (%d+) (%S+) (%d+ %d+ %d+) (.+)$')
      if number and tonumber(lease) > now then
        return token, number, window, nonce, terms, channel
      end
      drop(token)
    end
  end
end

-- Gives the key to a waiter by its terms: the floor of its fence, the retention of the counter and the quarantine. Returns
-- the fence, 0 without one, or nil if the node must not vote.
local function give(token, window, terms)
  local floor, retention, quarantine = string.match(terms, '^(%d+) (%d+) (%d+)$')
  if quarantined(5, quarantine) > 0 then
    return nil
  end
  local fence = floor == '0' and 0 or raise(4, 4, floor, 1, retention)
  redis.call('SET', KEYS[1], token, 'PX', window)
  return fence
end

-- Publishes a text on the channel of a waiter. The channel begins with how: 'P ', or 'S ' on a Cluster, where it is in the key's
-- slot, so that the server which runs this has it. Returns how many clients of this server received it.
local function tell(channel, text)
  local name = string.sub(channel, 3)
  if string.sub(channel, 1, 2) == 'S ' then
    return redis.pcall('SPUBLISH', name, text)
  end
  return redis.pcall('PUBLISH', name, text)
end

-- Reports whether a waiter listens to this server. The text means nothing. It must go before a grant: a grant that this server
-- counts no receiver of may have one all the same, on a replica, where a waiter is still subscribed after a failover.
local function listens(channel)
  local heard = tell(channel, '?')
  return type(heard) == 'number' and heard > 0
end

-- Tells a waiter that it was granted the key or, with the number 0, that it is to join again. The nonce proves that the
-- message comes from this node.
local function push(channel, token, nonce, number, fence)
  return tell(channel, token .. ' ' .. nonce .. ' ' .. number .. ' ' .. string.format('%.0f', fence))
end

-- Has the second in the queue join again: it will soon be the first, and its grant counts from its last join.
local function prepare(skip)
  local token = redis.call('ZRANGE', KEYS[2], 1, 1)[1]
  if not token or token == skip then
    return
  end
  local nonce, channel = string.match(redis.call('HGET', KEYS[3], token) or '', '^%d+ %d+ %d+ (%S+) %d+ %d+ %d+ (.+)$')
  if channel then
    push(channel, token, nonce, 0, 0)
  end
end

-- Gives the key, which is ours or absent, to the first waiter that listens, and returns its token. If no waiter listens it
-- returns nil, and the key is as it was. A waiter is told only after its key is set.
-- A caller without a guard has declared no marker, and so cannot grant to a waiter with one. If that is the first that listens,
-- it keeps its turn: the key is deleted, the waiter is told to join again, and grant returns ''. It takes the key with its next
-- join, which comes within half a window, and until then no other waiter does. If none comes, its lease ends.
local function grant(skip)
  while true do
    local token, number, window, nonce, terms, channel = first(skip)
    if not token then
      return nil
    end
    local knows = KEYS[5] or string.sub(terms, -2) == ' 0'
    if not knows then
      redis.call('DEL', KEYS[1])
      local heard = push(channel, token, nonce, 0, 0)
      if type(heard) == 'number' and heard > 0 then
        return ''
      end
    end
    drop(token)
    local fence = knows and listens(channel) and give(token, window, terms)
    if fence then
      push(channel, token, nonce, number, fence)
      -- The waiter counts on the key by now, so no error may have it released. While a Cluster migrates the slot, calls for
      -- keys that are missing fail, and the queue is gone if it is empty.
      pcall(prepare, skip)
      return token
    end
  end
end

-- Puts one waiter into the queue, or renews its lease. A clock that is behind gains no rank, and one that is ahead loses
-- none: order counts as far as it agrees with how long the wait has lasted. Calls may overtake each other: the number and
-- the terms are those of the call that was made last.
local function enter(token, number, order, waited, channel, nonce, window, lease, terms)
  redis.call('ZADD', KEYS[2], 'NX', math.min(math.max(tonumber(order), now - 1000 - tonumber(waited)), now), token)
  local before, known = string.match(redis.call('HGET', KEYS[3], token) or '', '^(%d+) %d+ %d+ %S+ (%d+ %d+ %d+) ')
  if before and tonumber(before) > tonumber(number) then
    number, terms = before, known
  end
  redis.call('HSET', KEYS[3], token, table.concat({number, string.format('%.0f', now + tonumber(lease)), window, nonce, terms, channel}, ' '))
  for i = 2, 3 do
    if redis.call('PTTL', KEYS[i]) < 2 * lease then -- never shorter: other waiters may have longer leases
      redis.call('PEXPIRE', KEYS[i], 2 * lease)
    end
  end
end

-- The answer to a waiter: the key's remaining ttl, or below 0; how many waiters are before it; and the owner's token.
local function queued(token, owner)
  return {0, redis.call('PTTL', KEYS[1]), redis.call('ZRANK', KEYS[2], token) or -1, type(owner) == 'string' and owner or ''}
end
