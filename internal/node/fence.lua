-- The counters of fences: decimal numbers below 2^53, up to which Lua's numbers are exact.
local function counted(counter)
  local value = redis.call('GET', counter)
  if not value then
    return 0
  end
  if not string.match(value, '^%d+$') or tonumber(value) > 2 ^ 53 - 2 then
    error('the fence counter ' .. counter .. ' holds no number below 2^53')
  end
  return tonumber(value)
end

-- Sets the counters, those of the keys from the given one on, to one number: at least floor, and by step above each of
-- them. Returns it.
local function raise(keys, from, floor, step, retention)
  local fence = tonumber(floor)
  for i = from, #keys do
    fence = math.max(fence, counted(keys[i]) + step)
  end
  for i = from, #keys do
    redis.call('SET', keys[i], string.format('%.0f', fence), 'PX', retention)
  end
  return fence
end
