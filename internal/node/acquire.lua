-- Takes every key for one owner, all or nothing.
-- KEYS: the lock's keys. ARGV[1]: token. ARGV[2]: ttl in ms.
-- Returns 1 if all were free and are now ours, 0 if any was held (nothing is changed then).
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    return 0
  end
end
for _, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[1], 'PX', ARGV[2])
end
return 1
