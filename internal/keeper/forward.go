package keeper

import (
	"time"

	"github.com/redis-kit/redlock/internal/clock"
)

// Instant is a moment on the Clock.
type Instant = clock.Instant

// Now returns the current instant.
func (k *Keeper) Now() Instant { return k.clock.Now() }

// Validity is the Clock's.
func (k *Keeper) Validity(ttl time.Duration) time.Duration { return k.clock.Validity(ttl) }
