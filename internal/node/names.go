package node

import (
	"errors"
	"strings"
)

// What the library keeps on a node beside the keys of locks. The queue of the key k is in
// k:waiters and k:waiting (queue.lua), and the counter of its fences in [Counter](k). The
// restart guard has its marker (guard.lua). A lock on one of these keys would break the
// queue, the fences or the guard of other locks.
var companions = []string{":waiters", ":waiting", ":fence"}

const marker = "redlock:guard"

// ErrReserved is the error of a key that is no lock's.
var ErrReserved = errors.New("the library uses this name: a key must not end in :waiters, :waiting or :fence, nor be redlock:guard")

// Reserved returns [ErrReserved] if a key, as it is on the nodes, has a name that the
// library uses, and nil otherwise. Such a name is reserved whatever it begins with: which
// keys are locked besides cannot be known.
func Reserved(key string) error {
	if key == marker {
		return ErrReserved
	}
	for _, suffix := range companions {
		if strings.HasSuffix(key, suffix) {
			return ErrReserved
		}
	}
	return nil
}
