-- Returns who owns the keys, and changes nothing.
-- KEYS: the lock's keys. ARGV[1]: a token, not used.
-- Returns {0, token of the owner} for the first key that is held, or 1 if all are free. A key of another type is another
-- owner's, who has no token.
for i = 1, #KEYS do
  local owner = redis.pcall('GET', KEYS[i])
  if type(owner) == 'table' and owner.err then
    if not string.find(owner.err, 'WRONGTYPE', 1, true) then
      return owner
    end
    owner = ''
  end
  if owner then
    return {0, owner}
  end
end
return 1
