-- Asks whether the node would let a lock be taken: whether scripts run, and whether it may be written to. Changes nothing.
-- KEYS: a key that does not exist. ARGV[1]: token.
-- SET with XX does nothing to such a key. But the server refuses it as it refuses every other SET: if it is a replica, has
-- no memory left, cannot save, lacks replicas, or does not allow it.
redis.call('SET', KEYS[1], ARGV[1], 'XX', 'PX', '1')
return 1
