package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis-kit/redlock"
)

const heldNodes = 3

// watched is the number of held locks that are sampled to count extensions: reading all
// would cost too much.
const watched = 1000

// runHeld measures one Locker that holds very many locks at a time.
func runHeld(ctx context.Context, s settings) (section, error) {
	sec := section{
		Title: "Held locks",
		Text:  "One Locker holds all of these locks at a time and keeps them extended.",
	}
	t := newTable("", []string{"value"})
	sec.Tables = []table{t}
	err := withHost(func(h *host) error {
		servers := start(h, heldNodes, 0)
		opened, err := openAll(ctx, h, servers.deployment, func(p peer) bool { return p.name == ours })
		if err != nil {
			return err
		}
		locker := opened[0].locker.(redlockPeer).Locker
		keys := keysFor("held", 1, s.locks)[0]
		locks := make([]*redlock.Lock, s.locks)

		s.logf("held: acquire %d locks", s.locks)
		goroutines, bytes, begin := runtime.NumGoroutine(), heap(), time.Now()
		if err := acquireHeld(ctx, locker, keys, locks, s.ttl); err != nil {
			return err
		}
		acquired := time.Since(begin)
		time.Sleep(s.ttl / 30) // calls that the quorum did not wait for end
		perLock := float64(heap()-bytes) / float64(s.locks)

		window := time.Duration(s.ttls) * s.ttl
		s.logf("held: hold them for %v", window)
		cpu, begin := cpuNow(), time.Now()
		extensions, most, err := watchHeld(ctx, locks, s.ttl, window)
		if err != nil {
			return err
		}
		cpu, held := cpuNow()-cpu, time.Since(begin)
		lost := 0
		for _, lock := range locks {
			if !lock.Valid() || lock.Context().Err() != nil {
				lost++
			}
		}
		remain, err := sizes(servers)
		if err != nil {
			return err
		}
		begin = time.Now()
		closeErr := locker.Close()
		closed := time.Since(begin)
		left, err := sizes(servers)
		if err != nil {
			return err
		}

		rate := extensions / held.Seconds()
		t.set("locks", "value", strconv.Itoa(s.locks))
		t.set("ttl", "value", s.ttl.String())
		t.set("nodes", "value", strconv.Itoa(heldNodes))
		t.set("held for", "value", held.Round(100*time.Millisecond).String())
		t.set("lost", "value", strconv.Itoa(lost))
		t.set("keys on the nodes at the end", "value", remain)
		t.set("goroutines, at most, beyond those without locks", "value", strconv.Itoa(most-goroutines))
		t.set("bytes of heap and stacks per lock", "value", fmt.Sprintf("%.0f", perLock))
		t.set("extensions per second", "value", fmt.Sprintf("%.0f", rate))
		t.set("CPU of the client, of one core", "value", fmt.Sprintf("%.1f %%", 100*cpu.Seconds()/held.Seconds()))
		t.set("CPU of the client per extension", "value", duration(float64(cpu)/(rate*held.Seconds())))
		t.set(fmt.Sprintf("to acquire them, %d at a time", callers), "value", acquired.Round(time.Millisecond).String())
		t.set("to release them, by Close", "value", closed.Round(time.Millisecond).String())
		t.set("keys on the nodes after Close", "value", left)
		if closeErr != nil {
			t.notef("Close said: %v", closeErr)
		}
		if lost > 0 {
			t.notef("%d locks were LOST.", lost)
		}
		return nil
	})
	return sec, err
}

// sizes returns the number of keys on each node.
func sizes(s *servers) (string, error) {
	var all []string
	for _, node := range s.nodes {
		size, err := node.Do("DBSIZE")
		if err != nil {
			return "", err
		}
		all = append(all, fmt.Sprint(size))
	}
	return strings.Join(all, ", "), nil
}

// acquireHeld fills locks, and starts the extension of all of them.
func acquireHeld(ctx context.Context, locker *redlock.Locker, keys []string, locks []*redlock.Lock, ttl time.Duration) error {
	var wg sync.WaitGroup
	errs := make([]error, callers)
	for first := range callers {
		wg.Go(func() {
			for i := first; i < len(keys) && errs[first] == nil; i += callers {
				// Acquire, for on a loaded machine one attempt may fail.
				locks[i], errs[first] = locker.Acquire(ctx, keys[i], ttl)
				if errs[first] == nil {
					errs[first] = locks[i].AutoExtend(0)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// watchHeld returns after window the number of extensions of all locks, and the largest
// number of goroutines. It detects an extension by the lock's new deadline, and reads
// that many times between two extensions.
func watchHeld(ctx context.Context, locks []*redlock.Lock, ttl, window time.Duration) (extensions float64, goroutines int, err error) {
	step := max(1, len(locks)/watched)
	until := make(map[int]time.Time)
	for i := 0; i < len(locks); i += step {
		until[i] = locks[i].Until()
	}
	look := time.NewTicker(ttl / 100)
	defer look.Stop()
	end := time.NewTimer(window)
	defer end.Stop()
	moved := 0
	for {
		select {
		case <-look.C:
		case <-end.C:
			return float64(moved) * float64(len(locks)) / float64(len(until)), goroutines, nil
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
		goroutines = max(goroutines, runtime.NumGoroutine())
		for i, old := range until {
			if now := locks[i].Until(); now.After(old) {
				until[i] = now
				moved++
			}
		}
	}
}

// heap returns the bytes of all live objects and stacks.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the first moves what is pooled out of use, the second frees it
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return int64(mem.HeapAlloc + mem.StackInuse)
}
