package node

import (
	"errors"
	"strings"
)

// Besides the keys of locks, the library keeps on a node the companions of each key: its queue
// and the counter of its fences. A lock on the name of a companion would break the queue or the
// fences of another lock.
const (
	Queue   = "queue"   // the sorted set of the tokens that wait for the key
	Waiters = "waiters" // the hash with an entry for each of these tokens
	Fence   = "fence"   // the counter of the key's fences

	// GuardKey is the key of the restart guard's marker.
	GuardKey = "redlock:guard"

	// What separates a key from the name of a companion.
	untaggedInfix = ":redlock:"
	taggedInfix   = ":redlock."
)

// Companion returns the companion of a lock key that has this name, which is letters and
// digits. In a Cluster it is in the key's slot, except for keys that have a closing brace and no
// hash tag, such as "a}b" and "{}x".
//
// The form depends on the key alone, so that all processes count in the same counter. There are
// two infixes: with one, the keys k and {k} would have the same companions.
func Companion(key, name string) string { return string(appendCompanion(nil, key, name)) }

// appendCompanion appends the companion of a key to text.
func appendCompanion(text []byte, key, name string) []byte {
	if _, tagged := HashTag(key); tagged {
		return append(append(append(text, key...), taggedInfix...), name...)
	}
	text = append(append(append(text, '{'), key...), '}')
	return append(append(text, untaggedInfix...), name...)
}

// HashTag returns the hash tag of a key, if it has one. In a Cluster the tag alone decides the
// key's slot.
func HashTag(key string) (string, bool) {
	_, rest, opened := strings.Cut(key, "{")
	tag, _, closed := strings.Cut(rest, "}")
	return tag, opened && closed && tag != ""
}

// ErrReserved is the error of a key that the library uses for itself.
var ErrReserved = errors.New("the library uses this name: a key must not contain \":redlock:\" or \":redlock.\", nor be \"redlock:guard\"")

// Reserved returns [ErrReserved] if key, which is given as it is on the nodes, is a name that the
// library uses. A name with an infix is reserved whatever is around it: no process knows which
// other keys are locked.
func Reserved(key string) error {
	if key == GuardKey || HasInfix(key) {
		return ErrReserved
	}
	return nil
}

// HasInfix reports whether text makes every key that contains it a reserved one.
func HasInfix(text string) bool {
	return strings.Contains(text, untaggedInfix) || strings.Contains(text, taggedInfix)
}
