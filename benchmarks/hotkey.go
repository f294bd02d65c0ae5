package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// hotCallers is how many goroutines want the hot key.
const hotCallers = 16

// hotResult is the result of one implementation, with one value per round.
type hotResult struct{ ns, share []float64 }

// runHotkey measures goroutines of this process that acquire the same lock.
func runHotkey(ctx context.Context, s settings) (section, error) {
	sec := section{
		Title: "A hot key in one process",
		Text: fmt.Sprintf("%d goroutines of one process want the same lock all the time, and release it at once. The time of a "+
			"cycle is that of the wall clock, divided by the cycles of all; its ratio is to rueidislock's of the same round. "+
			"Shares are the cycles of the goroutine that had most, divided by those of the one that had least.", hotCallers),
	}
	for _, n := range []int{1, 3} {
		t := newTable("Hot key, "+nodesName(n), []string{"time per cycle", "ratio", "shares"})
		err := withHost(func(h *host) error {
			servers := startWithCluster(h, n, 0)
			s.logf("hotkey: %s", nodesName(n))
			cs, err := openAll(ctx, h, servers.deployment, waits)
			if err != nil {
				return err
			}
			results := make(map[string]*hotResult)
			for _, c := range cs {
				results[c.name] = &hotResult{}
				if _, err := runHot(ctx, c, s.sample/5); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			for round := range s.rounds {
				err := rotated(round, cs, func(c contestant) error {
					begin := time.Now()
					counts, err := runHot(ctx, c, s.hotSample)
					took := time.Since(begin)
					cycles := 0
					for _, n := range counts {
						cycles += n
					}
					r := results[c.name]
					r.ns = append(r.ns, float64(took)/float64(cycles))
					r.share = append(r.share, shareOf(counts))
					return err
				})
				if err != nil {
					return err
				}
			}
			base := results[theWaiter]
			for _, c := range cs {
				r := results[c.name]
				t.set(c.name, "time per cycle", duration(spreadOf(r.ns).median))
				if r != base {
					t.set(c.name, "ratio", spreadOf(ratios(r.ns, base.ns)).String())
				}
				t.set(c.name, "shares", shares(r.share))
			}
			return nil
		})
		if err != nil {
			return sec, err
		}
		sec.Tables = append(sec.Tables, t)
	}
	return sec, nil
}

// runHot returns the number of cycles of each goroutine.
func runHot(ctx context.Context, c contestant, d time.Duration) ([]int, error) {
	hot, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	key := "hot-" + c.name + keySerialNext()
	counts, errs := make([]int, hotCallers), make([]error, hotCallers)
	var wg sync.WaitGroup
	for i := range hotCallers {
		wg.Go(func() {
			n := 0
			for hot.Err() == nil {
				lock, err := c.locker.(waiter).Wait(hot, key)
				if err == nil {
					n++
					err = lock.Release(ctx)
				} else if hot.Err() != nil {
					break
				}
				if err != nil {
					errs[i] = err
					break
				}
			}
			counts[i] = n
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return counts, err
		}
	}
	return counts, ctx.Err()
}
