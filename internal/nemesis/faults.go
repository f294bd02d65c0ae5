package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// stop has the nodes SIGSTOPped for d.
func (a *Arena) stop(ctx context.Context, nodes []int, d time.Duration) {
	for _, i := range nodes {
		a.Servers[i].Pause()
	}
	pause(ctx, d)
	for _, i := range nodes {
		a.Servers[i].Resume()
	}
}

// restart kills the nodes and has them back after d. Of two at once, the later
// waits: it would have the other's nodes back too early.
func (a *Arena) restart(nodes []int, d time.Duration) {
	a.restarting.Lock()
	defer a.restarting.Unlock()
	for _, i := range nodes {
		a.Servers[i].Kill()
	}
	pause(context.Background(), d) // not cut short: a node must be away for as long as was meant
	for _, i := range nodes {
		a.Servers[i].Restart()
	}
}

func (a *Arena) each(nodes []int, do func(i int)) {
	for _, i := range nodes {
		do(i)
	}
}

// tell sends a command to the servers, past the proxies. Errors are the
// server's own business: it may be stopped by another fault.
func (a *Arena) tell(nodes []int, args ...string) {
	a.each(nodes, func(i int) { _, _ = a.Servers[i].Do(args...) })
}

// heal sends a command that undoes a fault until the servers have carried it
// out, whatever else befalls them.
func (a *Arena) heal(nodes []int, args ...string) {
	a.each(nodes, func(i int) {
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); pause(context.Background(), 5*time.Millisecond) {
			if _, err = a.Servers[i].Do(args...); err == nil {
				return
			}
		}
		a.t.Errorf("nemesis: node %d is not healed by %q: %v", i, args, err)
	})
}

// Faults are those under which every property holds, and so can be mixed, and be
// several at once. Two that hang a node end together, with the first. The numbers are the rows of proof/README.md.
var Faults = []Fault{
	{"5 restart empty after more than the ttl, one", func(_ context.Context, a *Arena, random *rand.Rand) {
		a.restart(a.some(random, 1), a.TTL+a.TTL/4)
	}},
	{"7 SIGSTOP, one", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.stop(ctx, a.some(random, 1), between(random, a.TTL/2, 3*a.TTL))
	}},
	{"7 SIGSTOP, minority", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.stop(ctx, a.some(random, a.minority()), between(random, a.TTL/2, 3*a.TTL))
	}},
	{"7 SIGSTOP, majority", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.stop(ctx, a.some(random, a.most()), between(random, a.TTL/2, 3*a.TTL))
	}},
	{"7 SIGSTOP, all", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.stop(ctx, a.some(random, len(a.Servers)), between(random, a.TTL/2, 3*a.TTL))
	}},
	{"8 CLIENT PAUSE", func(ctx context.Context, a *Arena, random *rand.Rand) {
		d := between(random, a.TTL/2, 2*a.TTL)
		nodes := a.some(random, 1+random.IntN(len(a.Servers)))
		command := []string{"CLIENT", "PAUSE", strconv.FormatInt(d.Milliseconds(), 10)}
		if random.IntN(2) == 1 {
			command = append(command, "WRITE") // from Redis 6.2 on; before, an error
		}
		a.tell(nodes, command...)
		pause(ctx, d)
	}},
	{"8 DEBUG SLEEP", func(_ context.Context, a *Arena, random *rand.Rand) {
		d := between(random, a.TTL/2, a.TTL)
		a.together(a.some(random, 1+random.IntN(len(a.Servers))), func(i int) {
			_, _ = a.Servers[i].Do("DEBUG", "SLEEP", fmt.Sprintf("%.3f", d.Seconds()))
		})
	}},
	{"8 a busy script", func(_ context.Context, a *Arena, random *rand.Rand) {
		turns := strconv.Itoa(5_000_000 + random.IntN(10_000_000))
		a.together(a.some(random, a.minority()), func(i int) {
			_, _ = a.Servers[i].Do("EVAL", "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i end return n", "0", turns)
		})
	}},
	{"9 delays", func(ctx context.Context, a *Arena, random *rand.Rand) {
		for i := range a.Proxies {
			requests, replies := between(random, time.Millisecond, a.TTL), between(random, time.Millisecond, a.TTL)
			switch random.IntN(4) {
			case 0:
				a.Proxies[i].Delay(requests, 0)
			case 1:
				a.Proxies[i].Delay(0, replies)
			case 2:
				a.Proxies[i].Delay(requests/10, replies/10)
			}
		}
		pause(ctx, between(random, a.TTL, 4*a.TTL))
		a.each(a.all(), func(i int) { a.Proxies[i].Delay(0, 0) })
	}},
	{"10 black hole, minority", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.through(ctx, a.some(random, a.minority()), between(random, a.TTL, 8*a.TTL), func(i int, on bool) { a.Proxies[i].BlackHole(on) })
	}},
	{"10 black hole, majority", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.through(ctx, a.some(random, a.most()), between(random, a.TTL, 4*a.TTL), func(i int, on bool) { a.Proxies[i].BlackHole(on) })
	}},
	{"10 connections refused", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.through(ctx, a.some(random, 1+random.IntN(len(a.Servers))), between(random, a.TTL, 4*a.TTL), func(i int, on bool) { a.Proxies[i].Refuse(on) })
	}},
	{"10 replies held back", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.through(ctx, a.some(random, 1+random.IntN(len(a.Servers))), between(random, a.TTL, 4*a.TTL), func(i int, on bool) { a.Proxies[i].HoldReplies(on) })
	}},
	{"11 connections cut", func(ctx context.Context, a *Arena, random *rand.Rand) {
		for range 5 {
			i := random.IntN(len(a.Proxies))
			switch random.IntN(3) {
			case 0:
				a.Proxies[i].Cut()
			case 1:
				a.Proxies[i].CutAfterRequest([]string{"SET", "EVALSHA"}[random.IntN(2)])
			case 2:
				a.Proxies[i].CutAfterReplyBytes(random.IntN(40))
			}
			pause(ctx, between(random, 0, a.TTL/2))
		}
		a.each(a.all(), func(i int) { a.Proxies[i].Heal() })
	}},
	{"12 one byte at a time", func(ctx context.Context, a *Arena, random *rand.Rand) {
		a.through(ctx, a.some(random, 1), between(random, a.TTL, 4*a.TTL), func(i int, on bool) {
			if on {
				a.Proxies[i].Dribble(between(random, time.Millisecond, 50*time.Millisecond))
			} else {
				a.Proxies[i].Dribble(0)
			}
		})
	}},
	{"13 requests held back, connections cut", func(ctx context.Context, a *Arena, random *rand.Rand) {
		nodes := a.some(random, 1+random.IntN(len(a.Servers)))
		a.each(nodes, func(i int) { a.Proxies[i].HoldRequests(true) })
		pause(ctx, between(random, a.TTL/4, a.TTL))
		a.each(nodes, func(i int) { a.Proxies[i].Cut() }) // what comes next, the release too, has another connection
		pause(ctx, between(random, 0, a.TTL/2))
		a.each(nodes, func(i int) { a.Proxies[i].HoldRequests(false) })
	}},
	{"18 out of memory", func(ctx context.Context, a *Arena, random *rand.Rand) {
		nodes := a.some(random, 1+random.IntN(len(a.Servers)))
		a.tell(nodes, "CONFIG", "SET", "maxmemory", "1")
		pause(ctx, between(random, a.TTL/2, 2*a.TTL))
		a.heal(nodes, "CONFIG", "SET", "maxmemory", "0")
	}},
	{"18 permission denied", func(ctx context.Context, a *Arena, random *rand.Rand) {
		nodes := a.some(random, 1+random.IntN(len(a.Servers)))
		a.tell(nodes, "ACL", "SETUSER", "default", "-set", "-evalsha")
		pause(ctx, between(random, a.TTL/2, 2*a.TTL))
		a.heal(nodes, "ACL", "SETUSER", "default", "+@all")
	}},
	{"18 read only, scripts flushed", func(ctx context.Context, a *Arena, random *rand.Rand) {
		nodes := a.some(random, a.minority())
		a.tell(nodes, "REPLICAOF", "127.0.0.1", "1")
		a.tell(a.all(), "SCRIPT", "FLUSH")
		pause(ctx, between(random, a.TTL/2, 2*a.TTL))
		a.heal(nodes, "REPLICAOF", "NO", "ONE")
	}},
	{"19 clogged one by one", func(ctx context.Context, a *Arena, random *rand.Rand) {
		for _, i := range a.some(random, len(a.Proxies)) {
			a.Proxies[i].BlackHole(true)
			pause(ctx, between(random, 0, a.TTL/2))
		}
		for _, i := range a.some(random, len(a.Proxies)) {
			a.Proxies[i].BlackHole(false)
			pause(ctx, between(random, 0, a.TTL/2))
		}
	}},
}

func (a *Arena) all() []int {
	nodes := make([]int, len(a.Servers))
	for i := range nodes {
		nodes[i] = i
	}
	return nodes
}

// through switches a fault of the proxies on for d.
func (a *Arena) through(ctx context.Context, nodes []int, d time.Duration, set func(i int, on bool)) {
	a.each(nodes, func(i int) { set(i, true) })
	pause(ctx, d)
	a.each(nodes, func(i int) { set(i, false) })
}

// together does something that blocks on several nodes at once.
func (a *Arena) together(nodes []int, do func(i int)) {
	var all sync.WaitGroup
	for _, i := range nodes {
		all.Go(func() { do(i) })
	}
	all.Wait()
}
