package node

import (
	"errors"
	"strings"
)

// Besides the keys of locks, the library keeps on a node: the queue of a key, the counter
// of its fences, and the marker of the restart guard. A lock on one of these names would
// break the queue, the fences or the guard of other locks.
const (
	waitersSuffix = ":waiters"
	waitingSuffix = ":waiting"
	counterSuffix = ":fence"

	// GuardKey is the key of the restart guard's marker.
	GuardKey = "redlock:guard"
)

// WaitersKey is the key of the sorted set with the tokens that wait for a lock key.
func WaitersKey(key string) string { return key + waitersSuffix }

// WaitingKey is the key of the hash with an entry for each of these tokens.
func WaitingKey(key string) string { return key + waitingSuffix }

// Counter is the key that counts the fences of a lock key. In a Cluster it is in the lock
// key's slot, wherever such a name exists. For a key with a brace that closes no hash tag
// no such name exists.
func Counter(key string) string {
	if _, tagged := HashTag(key); tagged {
		return key + counterSuffix
	}
	return "{" + key + "}" + counterSuffix
}

// HashTag returns the hash tag of a key, if it has one. In a Cluster the tag alone decides the
// key's slot.
func HashTag(key string) (string, bool) {
	_, rest, opened := strings.Cut(key, "{")
	tag, _, closed := strings.Cut(rest, "}")
	return tag, opened && closed && tag != ""
}

// ErrReserved is the error of a key that the library uses for itself.
var ErrReserved = errors.New("the library uses this name: a key must not end in :waiters, :waiting or :fence, nor be redlock:guard")

// Reserved returns [ErrReserved] if the library itself uses the name of key, which is
// given as it is on the nodes. A name with one of the suffixes is reserved whatever
// precedes it: the node cannot know which other keys are locked.
func Reserved(key string) error {
	if key == GuardKey || strings.HasSuffix(key, waitersSuffix) || strings.HasSuffix(key, waitingSuffix) || strings.HasSuffix(key, counterSuffix) {
		return ErrReserved
	}
	return nil
}
