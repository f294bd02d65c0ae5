// Package leasthold lets adapters leave a lock's keys on the nodes when its
// [redlock.Locker] is closed. The public API does not: Close releases every key.
//
// [redlock.Locker]: https://pkg.go.dev/github.com/redis-kit/redlock#Locker
package leasthold

import (
	"context"
	"time"
)

// Key is the context key under which the context of a held lock has its Keep.
type Key struct{}

// Keep sets the time until which the keys of the lock stay on the nodes even if the
// Locker is closed: Close then ends the lock, and leaves its keys to expire by their ttl.
// The zero time cancels this, and must be set once the lock has ended. Keep reports false
// if the Locker has been closed.
type Keep func(until time.Time) bool

// Of returns the Keep of the lock that has this context.
func Of(lock context.Context) Keep { return lock.Value(Key{}).(Keep) }
