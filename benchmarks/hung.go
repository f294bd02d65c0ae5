package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// hungResult is the result of one implementation. Each value is the p99 of a round, in ns.
type hungResult struct {
	acquire, cycle [2][]float64
	ran, failed    [2]int
	stuck          bool // calls lasted until the node was back
}

// The two phases of a round.
const (
	healthy = iota
	hung
)

// runHung stops one node, so that it accepts commands and answers none.
func runHung(ctx context.Context, s settings) (section, error) {
	sec := section{
		Title: "One hung node",
		Text: "One node is stopped by SIGSTOP. The 99th percentile, and its ratio to that with all nodes healthy in the same " +
			"rounds: the median, and the quartiles. The floor is not here: it waits for all nodes. rueidislock runs on a " +
			"Cluster of three masters, one of which is stopped: a lock with two of its three keys there cannot be had, " +
			"and a release waits for all three.",
	}
	for _, n := range []int{3, 5} {
		err := withHost(func(h *host) error {
			servers := startWithCluster(h, n, 0)
			servers.Hangs = true
			for _, callers := range s.hungCallers {
				s.logf("hung: 1 of %d nodes, callers: %d", n, callers)
				results, err := runOneHung(ctx, s, servers, callers)
				if err != nil {
					return fmt.Errorf("1 of %d nodes, callers: %d: %w", n, callers, err)
				}
				hungReport(&sec, n, callers, results)
			}
			return nil
		})
		if err != nil {
			return sec, err
		}
	}
	return sec, nil
}

func runOneHung(ctx context.Context, s settings, on *servers, callers int) (results map[string]*hungResult, err error) {
	results = make(map[string]*hungResult)
	err = withHost(func(h *host) error {
		cs, err := openAll(ctx, h, on.deployment, func(p peer) bool { return p.name != theFloor && p.name != fenced && p.name != onCluster })
		if err != nil {
			return err
		}
		for _, c := range cs {
			results[c.name] = &hungResult{}
			startLoad(ctx, c, callers, s.hungSample/5).wait()
		}
		for round := range s.rounds {
			runLoads(ctx, s, cs, round, callers, func() {}).record(results, healthy)
			on.hang()
			runLoads(ctx, s, cs, round, callers, on.wake).record(results, hung)
			if err := ctx.Err(); err != nil {
				return err
			}
			time.Sleep(s.recovery)
		}
		return nil
	})
	return results, err
}

// loads is a phase, by the peer's name.
type loads map[string]*load

// runLoads runs all peers, one after the other, then after, and returns when
// everything has ended. A peer that hangs is waited for only at the end.
func runLoads(ctx context.Context, s settings, cs []contestant, round, callers int, after func()) loads {
	ls := make(loads)
	_ = rotated(round, cs, func(c contestant) error {
		l := startLoad(ctx, c, callers, s.hungSample)
		ls[c.name] = l
		select {
		case <-l.done:
		case <-time.After(s.hungSample + s.hungPatience):
			l.stuck = true
		}
		return nil
	})
	after()
	for _, l := range ls {
		l.wait()
	}
	return ls
}

func (ls loads) record(results map[string]*hungResult, phase int) {
	for name, l := range ls {
		r := results[name]
		slices.Sort(l.acquire)
		slices.Sort(l.cycle)
		r.acquire[phase] = append(r.acquire[phase], quantile(l.acquire, 0.99))
		r.cycle[phase] = append(r.cycle[phase], quantile(l.cycle, 0.99))
		r.ran[phase] += len(l.cycle)
		r.failed[phase] += l.failed
		r.stuck = r.stuck || l.stuck
	}
}

// load is callers at work for a while.
type load struct {
	done  chan struct{} // closed when all have ended
	stuck bool

	mu             sync.Mutex // guards what follows, until done
	acquire, cycle []float64  // ns, of every attempt, failed or not
	failed         int
}

func startLoad(ctx context.Context, c contestant, callers int, d time.Duration) *load {
	l := &load{done: make(chan struct{})}
	end := time.Now().Add(d)
	name := c.name + keySerialNext()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			var acquire, cycle []float64
			failed := 0
			for j := 0; ctx.Err() == nil && (j == 0 || time.Now().Before(end)); j++ {
				key := fmt.Sprintf("%s:%d:%d", name, i, j)
				begin := time.Now()
				lock, err := c.locker.(acquirer).Acquire(ctx, key)
				acquire = append(acquire, float64(time.Since(begin)))
				if err == nil {
					err = lock.Release(ctx)
				}
				cycle = append(cycle, float64(time.Since(begin)))
				if err != nil {
					failed++
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.acquire = append(l.acquire, acquire...)
			l.cycle = append(l.cycle, cycle...)
			l.failed += failed
		})
	}
	go func() {
		wg.Wait()
		close(l.done)
	}()
	return l
}

func (l *load) wait() { <-l.done }

func hungReport(sec *section, n, callers int, results map[string]*hungResult) {
	who := "one caller"
	if callers > 1 {
		who = fmt.Sprintf("%d callers", callers)
	}
	title := fmt.Sprintf("1 of %d nodes, %s", n, who)
	columns := []string{"acquire, healthy", "acquire, hung", "ratio", "cycle, healthy", "cycle, hung", "ratio of the cycle"}
	t := newTable("p99 with a hung node, "+title, columns)
	for _, p := range peers {
		r := results[p.name]
		if r == nil {
			continue
		}
		acquire, cycle := spreadOf(ratios(r.acquire[hung], r.acquire[healthy])), spreadOf(ratios(r.cycle[hung], r.cycle[healthy]))
		for i, text := range []string{
			duration(spreadOf(r.acquire[healthy]).median), duration(spreadOf(r.acquire[hung]).median), acquire.String(),
			duration(spreadOf(r.cycle[healthy]).median), duration(spreadOf(r.cycle[hung]).median), cycle.String(),
		} {
			t.set(p.name, columns[i], text)
		}
		sec.chart("hung", "p99 of an acquire with one hung node (less is better)", "ratio to the healthy p99").set(p.name, title, acquire.median)
		for phase, when := range []string{"healthy", "hung"} {
			if r.failed[phase] > 0 {
				t.notef("%s, %s: %d of %d cycles failed.", p.name, when, r.failed[phase], r.ran[phase])
			}
		}
		if r.stuck {
			t.notef("%s: calls hung until the node was back; how long they took is how long this program left it stopped.", p.name)
		}
	}
	sec.Tables = append(sec.Tables, t)
}
