package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// cycleSetup is one setup in which every implementation is measured.
type cycleSetup struct {
	callers, nodes int
}

var cycleSetups = []cycleSetup{{callers, 1}, {callers, 3}, {1, 1}, {1, 3}, {1, 5}}

func (c cycleSetup) String() string {
	who := "one caller"
	if c.callers > 1 {
		who = fmt.Sprintf("%d callers", c.callers)
	}
	if c.nodes == 1 {
		return who + ", 1 node"
	}
	return fmt.Sprintf("%s, %d nodes", who, c.nodes)
}

// cycleResult is the result of one implementation in one setup, with one value per round.
type cycleResult struct {
	ns, cpu, mallocs []float64
	cycles, failed   int
	left             int // keys on the nodes after the last round
}

// runCycle measures goroutines that acquire and release keys of their own, so no caller
// waits for a lock.
func runCycle(ctx context.Context, s settings) (section, error) {
	sec := section{
		Title: "Acquire and release",
		Text: "Each goroutine has keys of its own. Time and CPU are ratios to the floor of the same round: the median of the " +
			"rounds, and the quartiles; for the floor, what it took. The floor waits for all nodes; redlock, and redsync " +
			"with FailFast, go on with a quorum, so their ratio can be below 1. A key that is left on a node is one whose SET " +
			"came after its own release, over another connection, or was not taken back. rueidislock has a Cluster of three masters in " +
			"place of three independent servers, and asks for its keys one after the other: another promise, with as many " +
			"keys.",
	}
	for _, rtt := range s.rtts {
		results := make([]map[string]*cycleResult, len(cycleSetups))
		err := withHost(func(h *host) error {
			byNodes := make(map[int]*servers)
			for i, setup := range cycleSetups {
				s.logf("cycle: %s, %s", networkName(rtt), setup)
				if byNodes[setup.nodes] == nil {
					byNodes[setup.nodes] = startWithCluster(h, setup.nodes, rtt)
				}
				var err error
				if results[i], err = runSetup(ctx, s, setup, byNodes[setup.nodes]); err != nil {
					return fmt.Errorf("%s, %s: %w", networkName(rtt), setup, err)
				}
			}
			return nil
		})
		if err != nil {
			return sec, err
		}
		sec.add(cycleReport(rtt, results))
	}
	return sec, nil
}

func runSetup(ctx context.Context, s settings, setup cycleSetup, on *servers) (results map[string]*cycleResult, err error) {
	results = make(map[string]*cycleResult)
	settle := 10*time.Millisecond + 2*on.RTT
	err = withHost(func(h *host) error {
		if err := on.flush(); err != nil {
			return err
		}
		cs, err := openAll(ctx, h, on.deployment, func(p peer) bool { return p.name != onCluster })
		if err != nil {
			return err
		}
		// Connections are made and scripts loaded before anything is timed.
		for _, c := range cs {
			results[c.name] = &cycleResult{}
			if _, err := measure(ctx, c, keysFor("warm", setup.callers, 2), settle); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		cycles, err := calibrate(ctx, s, cs[0], setup.callers)
		if err != nil {
			return err
		}
		for round := range s.rounds {
			err := rotated(round, cs, func(c contestant) error {
				m, err := measure(ctx, c, keysFor(c.name, setup.callers, cycles), settle)
				r := results[c.name]
				r.ns = append(r.ns, m.ns)
				r.cpu = append(r.cpu, m.cpu)
				r.mallocs = append(r.mallocs, m.mallocs)
				r.cycles += cycles * setup.callers
				r.failed += m.failed
				return err
			})
			if err != nil {
				return err
			}
		}
		left := on.keys(h)
		for name, r := range results {
			for _, key := range left {
				// Counters of fences stay, as they must.
				if strings.Contains(key, name+":") && !strings.HasSuffix(key, ":fence") {
					r.left++
				}
			}
		}
		return nil
	})
	return results, err
}

// calibrate returns the number of cycles that each caller runs in a round: so many that
// the floor takes the time of a sample.
func calibrate(ctx context.Context, s settings, floor locker, callers int) (cycles int, err error) {
	for cycles = 1; ; cycles *= 2 {
		m, err := measure(ctx, floor, keysFor("calibrate", callers, cycles), 0)
		if err != nil {
			return 0, err
		}
		each := m.ns * float64(callers)
		if took := time.Duration(each * float64(cycles)); took >= s.sample/4 {
			return max(1, int(float64(s.sample)/each)), nil
		}
	}
}

// cycleReport writes the tables and charts of one network.
func cycleReport(rtt time.Duration, results []map[string]*cycleResult) ([]table, []*chart) {
	network := networkName(rtt)
	var columns, serial []string
	for _, setup := range cycleSetups {
		columns = append(columns, setup.String())
		if setup.callers == 1 {
			serial = append(serial, setup.String())
		}
	}
	times := newTable("Time per cycle, "+network, columns)
	cpus := newTable("CPU of the client per cycle, "+network, columns)
	mallocs := newTable("Allocations per cycle, "+network, serial)
	timeChart := &chart{File: "cycle-" + fileName(rtt), Title: "Time to acquire and release, " + network + " (less is better)", Unit: "ratio to the floor", Groups: columns}
	cpuChart := &chart{File: "cpu-" + fileName(rtt), Title: "CPU of the client to acquire and release, " + network + " (less is better)", Unit: "ratio to the floor", Groups: columns}

	for _, p := range peers {
		for i, all := range results {
			r, base := all[p.name], all[theFloor]
			if r == nil {
				continue
			}
			if r.failed > 0 {
				times.notef("%s, %s: %d of %d cycles failed.", p.name, columns[i], r.failed, r.cycles)
			}
			if r.left > 0 {
				times.notef("%s, %s: keys left on the nodes after %d cycles, for the rest of their ttl: %d.", p.name, columns[i], r.cycles, r.left)
			}
			cpu := spreadOf(r.cpu)
			if cycleSetups[i].callers == 1 {
				mallocs.set(p.name, columns[i], fmt.Sprintf("%.0f", spreadOf(r.mallocs).median))
			}
			if p.name == theFloor {
				times.set(p.name, columns[i], duration(spreadOf(r.ns).median))
				cpus.set(p.name, columns[i], duration(cpu.median))
				continue
			}
			ratio, cpuRatio := spreadOf(ratios(r.ns, base.ns)), spreadOf(ratios(r.cpu, base.cpu))
			times.set(p.name, columns[i], ratio.String())
			cpus.set(p.name, columns[i], fmt.Sprintf("%s, %s", cpuRatio, duration(cpu.median)))
			timeChart.set(p.name, columns[i], ratio.median)
			cpuChart.set(p.name, columns[i], cpuRatio.median)
		}
	}
	if rtt > 0 {
		// The proxies run in this process too: its CPU and allocations are
		// not the client's alone.
		return []table{times}, []*chart{timeChart}
	}
	return []table{times, cpus, mallocs}, []*chart{timeChart, cpuChart}
}

func networkName(rtt time.Duration) string {
	if rtt == 0 {
		return "loopback"
	}
	return fmt.Sprintf("round trip of %v", rtt)
}

func fileName(rtt time.Duration) string {
	if rtt == 0 {
		return "loopback"
	}
	return rtt.String()
}
