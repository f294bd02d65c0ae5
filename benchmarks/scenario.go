package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// scenario is one kind of work. To add one, write a function like its
// neighbours' and name it in scenarios.
type scenario struct {
	name string
	run  func(ctx context.Context, s settings) (section, error)
}

var scenarios = []scenario{
	{"cycle", runCycle},
	{"held", runHeld},
	{"hung", runHung},
	{"handover", runHandover},
	{"hotkey", runHotkey},
}

// callers is the number of goroutines that contend for the connections.
const callers = 128

// settings are the durations and sizes of all scenarios.
type settings struct {
	progress io.Writer

	rounds int
	sample time.Duration   // for which the floor runs in a round
	rtts   []time.Duration // what is added to a round trip of loopback

	locks int           // held at a time
	ttl   time.Duration // of those
	ttls  int           // for how many ttl they are held

	hungCallers []int
	hungSample  time.Duration // for which each peer runs, healthy and hung
	// hungPatience is the extra time for a peer whose calls hang, before the next begins.
	hungPatience time.Duration
	recovery     time.Duration // after a node has hung

	processes      []int         // that hand a lock over to each other
	handoverWarm   time.Duration // before anything is measured
	handoverSample time.Duration // for which each peer is measured

	hotSample time.Duration // for which each peer has a hot key
}

func full() settings {
	return settings{
		rounds:       7,
		sample:       300 * time.Millisecond,
		rtts:         []time.Duration{0, time.Millisecond, 20 * time.Millisecond},
		locks:        100_000,
		ttl:          30 * time.Second,
		ttls:         3,
		hungCallers:  []int{1, 64},
		hungSample:   500 * time.Millisecond,
		hungPatience: time.Second,
		recovery:     2 * time.Second,

		processes:      []int{2, 8, 32},
		handoverWarm:   500 * time.Millisecond,
		handoverSample: 2 * time.Second,
		hotSample:      500 * time.Millisecond,
	}
}

// quick is for a quick check: its figures mean little.
func quick() settings {
	s := full()
	s.rounds = 3
	s.sample = 50 * time.Millisecond
	s.locks, s.ttl = 10_000, 3*time.Second
	s.hungSample = 200 * time.Millisecond
	s.recovery = 500 * time.Millisecond
	s.handoverSample = 500 * time.Millisecond
	s.hotSample = 200 * time.Millisecond
	return s
}

func (s settings) logf(format string, args ...any) {
	fmt.Fprintf(s.progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// contestant is a peer that has been opened.
type contestant struct {
	peer
	locker
}

// openAll opens the peers that fit a deployment and pass the filter, in their
// order.
func openAll(ctx context.Context, h *host, d deployment, filter func(peer) bool) ([]contestant, error) {
	var opened []contestant
	for _, p := range peers {
		if !p.fits(len(d.Nodes)) || !filter(p) {
			continue
		}
		l, err := p.open(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", p.name, err)
		}
		opened = append(opened, contestant{p, l})
		h.Cleanup(func() {
			if err := l.Close(); err != nil {
				h.Errorf("close %s: %w", p.name, err)
			}
		})
	}
	if len(opened) == 0 {
		return nil, errors.New("no peer fits")
	}
	return opened, nil
}

// rotated calls f once for each contestant. The first one changes with the round.
func rotated(round int, cs []contestant, f func(contestant) error) error {
	for i := range cs {
		i = (i + round) % len(cs)
		if err := f(cs[i]); err != nil {
			return fmt.Errorf("%s: %w", cs[i].name, err)
		}
	}
	return nil
}
