package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// sample is the average cost of a cycle in one round.
type sample struct {
	ns      float64 // of the wall clock; with many callers, the inverse of the throughput
	cpu     float64 // ns of CPU that this process used
	mallocs float64
	failed  int
}

// measure has each caller run its keys through l, all at once.
func measure(ctx context.Context, l locker, keys [][]string, settle time.Duration) (sample, error) {
	var failed atomic.Int64
	var failure atomic.Value
	var wg sync.WaitGroup
	begin := make(chan struct{})
	cycles := 0
	for _, own := range keys {
		cycles += len(own)
		wg.Go(func() {
			<-begin
			for _, key := range own {
				if err := l.Cycle(ctx, key); err != nil {
					failed.Add(1)
					failure.Store(fmt.Errorf("cycle on %q: %w", key, err))
				}
			}
		})
	}
	runtime.GC() // no measurement pays for the garbage of another one
	before := usageNow()
	start := time.Now()
	close(begin)
	wg.Wait()
	took := time.Since(start)
	// A library that goes on with a quorum leaves calls under way: they are part of
	// the cost, and not of the next round.
	time.Sleep(settle)
	used := usageNow().since(before)

	n := float64(cycles)
	s := sample{
		ns:      float64(took) / n,
		cpu:     float64(used.cpu) / n,
		mallocs: float64(used.mallocs) / n,
		failed:  int(failed.Load()),
	}
	if err := ctx.Err(); err != nil {
		return s, err
	}
	if s.failed > cycles/2 {
		return s, fmt.Errorf("%d of %d cycles failed, the last: %w", s.failed, cycles, failure.Load().(error))
	}
	return s, nil
}

// keysFor returns the keys of each caller's cycles, made before the cycles are timed. No
// key is used twice: a key that one round leaves behind does not affect the next.
func keysFor(name string, callers, cycles int) [][]string {
	name += keySerialNext()
	keys := make([][]string, callers)
	for i := range keys {
		keys[i] = make([]string, cycles)
		for j := range keys[i] {
			keys[i][j] = name + ":" + strconv.Itoa(i) + ":" + strconv.Itoa(j)
		}
	}
	return keys
}

// keySerialNext returns a part of a key that has not been used before.
func keySerialNext() string { return ":" + strconv.FormatUint(keySerial.Add(1), 10) }

var keySerial atomic.Uint64

// usage returns the CPU time and allocations of this process so far.
type usage struct {
	cpu     time.Duration
	mallocs uint64
}

func usageNow() usage {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return usage{cpuNow(), mem.Mallocs}
}

func (u usage) since(before usage) usage {
	return usage{u.cpu - before.cpu, u.mallocs - before.mallocs}
}

func cpuNow() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails only for bad arguments
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// spread is the median and the quartiles of the values of the rounds.
type spread struct{ low, median, high float64 }

func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	return spread{quantile(sorted, 0.25), quantile(sorted, 0.5), quantile(sorted, 0.75)}
}

// quantile interpolates between the two nearest values. It is NaN if there is none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// ratios divides round by round.
func ratios(values, by []float64) []float64 {
	r := make([]float64, len(values))
	for i := range values {
		r[i] = values[i] / by[i]
	}
	return r
}
