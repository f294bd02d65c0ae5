package node

// LockerChannel is the channel of a Locker, for pushes about all its keys. The nonce is the
// Locker's.
func LockerChannel(nonce string) string { return "redlock:" + nonce }

// KeyChannel is the channel of a Locker for pushes about one key. In a Cluster it is in the
// key's slot, wherever such a name exists. No other Locker has it, so the number of its
// subscribers tells whether this one listens.
func KeyChannel(key, nonce string) string { return Companion(key, nonce) }
