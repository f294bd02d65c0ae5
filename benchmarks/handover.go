package main

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// handoverHold is how long each process holds the lock.
const handoverHold = 2 * time.Millisecond

// handoverNodes are the numbers of nodes. rueidislock does not run on five.
var handoverNodes = []int{1, 3, 5}

// waits reports whether a peer takes part where callers wait for a lock. Of the two peers
// that poll, one is enough.
func waits(p peer) bool {
	return p.name == ours || p.name == "redsync (rueidis)" || p.name == theWaiter
}

// handoverResult is the result of one implementation in one setup, with one value per round.
type handoverResult struct {
	p50, p99, rate, share []float64

	longest  time.Duration // wait
	gaps     int
	passed   int // hand-overs between two processes
	overlaps int // of two holders

	failed  int    // releases
	failure string // the error of the last of them

	commands map[string]int // that clients sent
	holds    int            // while the hand-overs were measured
}

// runHandover measures processes that hand one lock over to each other.
func runHandover(ctx context.Context, s settings) (section, error) {
	sec := section{
		Title: "Hand-over between processes",
		Text: "Processes want the same lock all the time; each holds it for 2 ms. The gap is from the call that releases it " +
			"until the next holder is inside: its median and 99th percentile, and their ratios to rueidislock's of the " +
			"same round; the median of the rounds, and the quartiles. Not every release passes the lock to another process: the one " +
			"that released it may be first again. Shares are the holds of the process that " +
			"had most, divided by those of the one that had least. The longest wait is that of all rounds. Commands are those that " +
			"clients sent to any server, per hold. rueidislock has a Cluster of three masters in place of three " +
			"independent servers, and so has redlock in a row of its own. redsync polls: a process that releases the lock often takes it again while the others " +
			"sleep, so its median gap is short and its waits are long.",
	}
	for _, n := range handoverNodes {
		columns := []string{"gap p50", "ratio", "gap p99", "ratio of the p99", "to another process", "holds per second", "shares", "longest wait", "commands per hold"}
		t := newTable("Hand-over, "+nodesName(n), columns)
		err := withHost(func(h *host) error {
			servers := startWithCluster(h, n, 0)
			for _, processes := range s.processes {
				s.logf("handover: %s, %d processes", nodesName(n), processes)
				results, err := runOneHandover(ctx, s, servers, processes)
				if err != nil {
					return fmt.Errorf("%s, %d processes: %w", nodesName(n), processes, err)
				}
				handoverReport(s, &sec, t, n, processes, results)
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

func runOneHandover(ctx context.Context, s settings, on *servers, processes int) (map[string]*handoverResult, error) {
	results := make(map[string]*handoverResult)
	var cs []contestant // by name: they are opened in other processes
	for _, p := range peers {
		if (waits(p) || p.name == onCluster) && p.fits(len(on.Nodes)) {
			cs = append(cs, contestant{peer: p})
			results[p.name] = &handoverResult{commands: make(map[string]int)}
		}
	}
	for round := range s.rounds {
		err := rotated(round, cs, func(c contestant) error {
			return withHost(func(h *host) error { return handOver(ctx, h, s, on, c.name, processes, results[c.name]) })
		})
		if err != nil {
			return nil, err
		}
	}
	return results, nil
}

// handOver lets a crew work: first to warm up, then while commands are counted, then
// while the hand-overs are measured.
func handOver(ctx context.Context, h *host, s settings, on *servers, name string, processes int, r *handoverResult) error {
	if err := on.flush(); err != nil {
		return err
	}
	c, err := startCrew(ctx, h, processes, job{name, on.deployment, "handover-" + name + keySerialNext(), handoverHold})
	if err != nil {
		return err
	}
	if err := c.begin(); err != nil {
		return err
	}
	time.Sleep(s.handoverWarm)
	m, err := monitor(slices.Concat(on.Nodes, on.Cluster))
	if err != nil {
		return err
	}
	time.Sleep(s.handoverSample / 4)
	commands, counting, counted := m.stop()
	begin := time.Now().UnixNano()
	time.Sleep(s.handoverSample)
	end := time.Now().UnixNano()
	turns, err := c.end()
	if err != nil {
		return err
	}
	for name, n := range commands {
		r.commands[name] += n
	}
	r.holds += len(insideOf(turns, counting, counted))
	r.add(turns, begin, end)
	return ctx.Err()
}

// turnOf is a turn and the process that had it.
type turnOf struct {
	process int
	turn
}

// insideOf returns the turns that began between from and to, in order.
func insideOf(turns [][]turn, from, to int64) (all []turnOf) {
	for process, own := range turns {
		for _, t := range own {
			if t.Inside >= from && t.Inside < to {
				all = append(all, turnOf{process, t})
			}
		}
	}
	slices.SortFunc(all, func(a, b turnOf) int { return int(a.Inside - b.Inside) })
	return all
}

// add adds a round: the turns of every process, and the time in which they were measured.
func (r *handoverResult) add(turns [][]turn, begin, end int64) {
	all := insideOf(turns, begin, end)
	var gaps []float64
	for _, t := range all {
		if t.Failure != "" {
			r.failed, r.failure = r.failed+1, t.Failure
		}
	}
	for i := range len(all) - 1 {
		gap := all[i+1].Inside - all[i].Leaving
		if gap < 0 {
			r.overlaps++
		}
		gaps = append(gaps, float64(gap))
		if all[i+1].process != all[i].process {
			r.passed++
		}
	}
	slices.Sort(gaps)
	r.gaps += len(gaps)
	r.p50 = append(r.p50, quantile(gaps, 0.5))
	r.p99 = append(r.p99, quantile(gaps, 0.99))
	r.rate = append(r.rate, float64(len(all))/time.Duration(end-begin).Seconds())
	var counts []int
	for _, own := range turns {
		counts = append(counts, len(insideOf([][]turn{own}, begin, end)))
		for _, t := range own {
			if t.Inside == 0 { // the process waited until the end
				t.Inside = end
			}
			if t.Inside >= begin && t.Inside <= end {
				r.longest = max(r.longest, time.Duration(t.Inside-t.Asked))
			}
		}
	}
	r.share = append(r.share, shareOf(counts))
}

// shareOf returns the largest count divided by the smallest.
func shareOf(counts []int) float64 {
	return float64(slices.Max(counts)) / float64(slices.Min(counts))
}

// shares returns the median of the shares, which is infinite if a process never held the lock.
func shares(values []float64) string {
	middle := slices.Sorted(slices.Values(values))[len(values)/2]
	if math.IsInf(middle, 1) {
		return "∞"
	}
	return figure(middle)
}

func handoverReport(s settings, sec *section, t table, n, processes int, results map[string]*handoverResult) {
	base := results[theWaiter]
	for _, p := range peers {
		r := results[p.name]
		if r == nil {
			continue
		}
		row := fmt.Sprintf("%s, %d processes", p.name, processes)
		set := func(i int, text string) { t.set(row, t.columns[i], text) }
		p50, p99 := spreadOf(r.p50).median, spreadOf(r.p99).median
		set(0, duration(p50))
		set(2, duration(p99))
		if base != nil && base != r {
			set(1, spreadOf(ratios(r.p50, base.p50)).String())
			set(3, spreadOf(ratios(r.p99, base.p99)).String())
		}
		if r.gaps > 0 {
			set(4, fmt.Sprintf("%.0f %%", 100*float64(r.passed)/float64(r.gaps)))
		}
		set(5, fmt.Sprintf("%.0f", spreadOf(r.rate).median))
		set(6, shares(r.share))
		set(7, duration(float64(r.longest)))
		if r.holds > 0 {
			sent := 0
			for _, n := range r.commands {
				sent += n
			}
			set(8, figure(float64(sent)/float64(r.holds)))
		}
		if r.overlaps > 0 {
			t.notef("%s: in %d of %d hand-overs the next holder was inside BEFORE the release.", row, r.overlaps, r.gaps)
		}
		if r.failed > 0 {
			t.notef("%s: %d of %d releases failed, the last: %s", row, r.failed, r.gaps, r.failure)
		}
		s.logf("handover: %s on %s: p50 %s, p99 %s; per hold: %s", row, nodesName(n), duration(p50), duration(p99), r.sentPerHold())

		group := fmt.Sprintf("%s, %d processes", nodesName(n), processes)
		for _, c := range []struct {
			file, which string
			ns          float64
		}{{"handover-p50", "median", p50}, {"handover-p99", "99th percentile", p99}} {
			if drawn := sec.chart(c.file, "Gap between two holders, "+c.which+" (less is better)", "ms"); !math.IsNaN(c.ns) {
				drawn.Absolute = true
				drawn.set(p.name, group, c.ns/1e6)
			}
		}
	}
}

// sentPerHold returns how often each command was sent per hold, the most frequent first.
func (r *handoverResult) sentPerHold() string {
	names := slices.SortedFunc(maps.Keys(r.commands), func(a, b string) int { return r.commands[b] - r.commands[a] })
	var texts []string
	if r.holds == 0 {
		return "no process held the lock"
	}
	for _, name := range names {
		texts = append(texts, fmt.Sprintf("%s %.2f", name, float64(r.commands[name])/float64(r.holds)))
	}
	return strings.Join(texts, ", ")
}

func nodesName(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
