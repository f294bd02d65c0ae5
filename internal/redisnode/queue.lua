-- The queue of a lock key, for join.lua and leave.lua: the tokens that wait, in order, and an entry for each.
--- guard.lua
--- fence.lua
local queue, entries = KEYS[1] .. ':waiters', KEYS[1] .. ':waiting'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function drop(token)
  redis.call('ZREM', queue, token)
  redis.call('HDEL', entries, token)
end

-- The first waiter with a valid lease, other than the one to skip. Waiters whose lease has ended are dropped.
local function first(skip)
  local rank = 0
  while true do
    local token = redis.call('ZRANGE', queue, rank, rank)[1]
    if not token then
      return nil
    end
    if token == skip then
      rank = rank + 1
    else
      local number, lease, window, channel, nonce, terms =
        string.match(redis.call('HGET', entries, token) or '', '^(%d+) (%d+) (%d+) (%S+) (%S+) (%d+ %d+ %d+ .*)$')
      if number and tonumber(lease) > now then
        return token, number, window, channel, nonce, terms
      end
      drop(token)
    end
  end
end

-- Gives the key to a waiter by its terms: the floor of its fence, the retention of the counter, the quarantine and the
-- counter. Returns the fence, 0 without one, or nil if the node must not vote.
local function give(token, window, terms)
  local floor, retention, quarantine, counter = string.match(terms, '^(%d+) (%d+) (%d+) (.*)$')
  if quarantined(quarantine) > 0 then
    return nil
  end
  local fence = floor == '0' and 0 or raise({counter}, 1, floor, 1, retention)
  redis.call('SET', KEYS[1], token, 'PX', window)
  return fence
end

-- Tells a waiter that it was granted the key or, with the number 0, that it is to join again. The nonce proves that the
-- message comes from this node. Returns how many clients received it.
local function push(channel, token, nonce, number, fence)
  return redis.pcall('PUBLISH', channel, token .. ' ' .. nonce .. ' ' .. number .. ' ' .. string.format('%.0f', fence))
end

-- Has the second in the queue join again: it will soon be the first, and its grant counts from its last join.
local function prepare(skip)
  local token = redis.call('ZRANGE', queue, 1, 1)[1]
  if not token or token == skip then
    return
  end
  local channel, nonce = string.match(redis.call('HGET', entries, token) or '', '^%d+ %d+ %d+ (%S+) (%S+) ')
  if channel then
    push(channel, token, nonce, 0, 0)
  end
end

-- Gives the key, which is ours or absent, to the first waiter that listens, and returns its token. If no waiter listens it
-- returns nil, and the caller deals with the key, which may then belong to a waiter that did not hear. A waiter is told only
-- after its key is set.
local function grant(skip)
  while true do
    local token, number, window, channel, nonce, terms = first(skip)
    if not token then
      return nil
    end
    drop(token)
    local fence = give(token, window, terms)
    local heard = fence and push(channel, token, nonce, number, fence)
    if type(heard) == 'number' and heard > 0 then
      prepare(skip)
      return token
    end
  end
end

-- Puts one waiter into the queue, or renews its lease. A clock that is behind gains no rank, and one that is ahead loses
-- none: order counts as far as it agrees with how long the wait has lasted. Calls may overtake each other: the number and
-- the terms are those of the call that was made last.
local function enter(token, number, order, waited, channel, nonce, window, lease, terms)
  redis.call('ZADD', queue, 'NX', math.min(math.max(tonumber(order), now - 1000 - tonumber(waited)), now), token)
  local before, known = string.match(redis.call('HGET', entries, token) or '', '^(%d+) %d+ %d+ %S+ %S+ (.*)$')
  if before and tonumber(before) > tonumber(number) then
    number, terms = before, known
  end
  redis.call('HSET', entries, token, table.concat({number, string.format('%.0f', now + tonumber(lease)), window, channel, nonce, terms}, ' '))
  for _, key in ipairs({queue, entries}) do
    if redis.call('PTTL', key) < 2 * lease then -- never shorter: other waiters may have longer leases
      redis.call('PEXPIRE', key, 2 * lease)
    end
  end
end

-- The answer to a waiter: the key's remaining ttl, or below 0; how many waiters are before it; and the owner's token.
local function queued(token, owner)
  return {0, redis.call('PTTL', KEYS[1]), redis.call('ZRANK', queue, token) or -1, type(owner) == 'string' and owner or ''}
end
