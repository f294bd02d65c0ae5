package redisnode

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// Feature is a part of the library that a server may lack something for.
type Feature string

// The features of a server. Without Mutex there is no other.
const (
	Mutex       Feature = "mutex"        // locks on one key
	SeveralKeys Feature = "several-keys" // locks on several keys, all or none
	Queue       Feature = "queue"        // waiters in a queue, to the first of which a release grants the lock
	Fence       Feature = "fence"        // locks with a fence
	Guard       Feature = "guard"        // locks under a restart guard
	Health      Feature = "ping"         // the question whether a server takes writes
)

// Features are all features.
var Features = []Feature{Mutex, SeveralKeys, Queue, Fence, Guard, Health}

// Rehearsal is what one server does for each feature.
type Rehearsal struct {
	Address string // of the server, as rueidis names it
	Results map[Feature]Result
}

// Result is what a server does for one feature.
type Result struct {
	Err    error // why the feature does not work; nil if it does
	Tagged bool  // it works for keys with a common hash tag only
}

// ErrUnsafe marks the error of a server on which two owners can have one key.
var ErrUnsafe = errors.New("two owners can have one key")

// hazard is an error that matches ErrUnsafe.
type hazard string

func (h hazard) Error() string        { return string(h) }
func (h hazard) Is(target error) bool { return target == ErrUnsafe }

// rehearsalTime bounds a rehearsal. The keys are deleted within another cleaningTime.
const rehearsalTime = 3 * time.Second

// Rehearse does on each server what the library does for each feature, and checks the answers.
// It asks a server of a Cluster only if keys that begin with prefix can be there. If there is no
// connection, it returns nothing.
//
// It uses new keys that begin with prefix. They are deleted, and otherwise expire within
// scratchTTL. The marker of restart guards is not touched: another key stands for it.
func (s *Redis) Rehearse(ctx context.Context, prefix string) []Rehearsal {
	client, err := s.connected()
	if err != nil {
		return nil
	}
	// With a deadline rueidis' own deadlines could not be told apart: see dialFailed.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(rehearsalTime, cancel).Stop()
	members := client.Nodes()
	found := make([]Rehearsal, len(members))
	var running sync.WaitGroup
	for i, addr := range slices.Sorted(maps.Keys(members)) {
		running.Go(func() { found[i] = Rehearsal{addr, s.rehearse(ctx, client, members[addr], prefix)} })
	}
	running.Wait()
	return slices.DeleteFunc(found, func(r Rehearsal) bool { return r.Results == nil })
}

// rehearse returns nil for a server of a Cluster that has no slot of such keys.
func (s *Redis) rehearse(ctx context.Context, client, member rueidis.Client, prefix string) map[Feature]Result {
	st := newStage(s, client, member, prefix)
	mutex := st.rehearse(ctx, Mutex)
	if errors.Is(mutex.Err, errNoSlot) {
		return nil
	}
	results := map[Feature]Result{Mutex: mutex}
	if mutex.Err != nil {
		// Not asked: a server that takes no lock says for other features what it has said for this
		// one or, if it is a replica, closes the connection.
		for _, f := range Features {
			results[f] = mutex
		}
		return results
	}
	others := make([]Result, len(Features))
	var running sync.WaitGroup
	for i, f := range Features {
		if f != Mutex {
			running.Go(func() { others[i] = st.rehearse(ctx, f) })
		}
	}
	running.Wait()
	for i, f := range Features {
		if f != Mutex {
			results[f] = others[i]
		}
	}
	return results
}
