-- The counters of fences: decimal numbers below 2^53, up to which Lua's numbers are exact.
local function counted(counter)
  local value = redis.call('GET', KEYS[counter])
  local number = tonumber(value or 0)
  if number and number >= 0 and number < 2 ^ 53 - 1 and number % 1 == 0 then
    return number
  end
  error('the fence counter ' .. KEYS[counter] .. ' holds no number below 2^53')
end

-- Sets the counters, KEYS[from] to KEYS[to], to one number: at least floor, and by step above each of them. Returns it.
local function raise(from, to, floor, step, retention)
  local least = tonumber(floor)
  if least >= 2 ^ 53 - 1 then -- it would leave no room to count
    error('the floor of the fence is not below 2^53: the clock of the client is wrong')
  end
  local fence = least
  for i = from, to do
    fence = math.max(fence, counted(i) + step)
  end
  local text = fence == least and floor or string.format('%.0f', fence) -- which costs more than a SET
  for i = from, to do
    redis.call('SET', KEYS[i], text, 'PX', retention)
  end
  return fence
end
