package nemesis

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

// stop stops the nodes by SIGSTOP for d.
func (bed *Testbed) stop(ctx context.Context, nodes []int, d time.Duration) {
	for _, i := range nodes {
		bed.Servers[i].Pause()
	}
	pause(ctx, d)
	for _, i := range nodes {
		bed.Servers[i].Resume()
	}
}

// restart kills the nodes and starts them again after d. A second restart waits for the first: it
// would bring the nodes of the first back too early.
func (bed *Testbed) restart(nodes []int, d time.Duration) {
	bed.restarting.Lock()
	defer bed.restarting.Unlock()
	for _, i := range nodes {
		bed.Servers[i].Kill()
	}
	pause(context.Background(), d) // ctx must not cut it short: a node must be away for all of d
	for _, i := range nodes {
		bed.Servers[i].Restart()
	}
}

func (bed *Testbed) each(nodes []int, do func(i int)) {
	for _, i := range nodes {
		do(i)
	}
}

// tell sends a command to the servers, past the proxies. Errors are the
// server's own business: it may be stopped by another fault.
func (bed *Testbed) tell(nodes []int, args ...string) {
	bed.each(nodes, func(i int) { _, _ = bed.Servers[i].Do(args...) })
}

// heal sends a command that undoes a fault until the servers have run it. Other faults may delay
// that.
func (bed *Testbed) heal(nodes []int, args ...string) {
	bed.each(nodes, func(i int) {
		var err error
		for end := time.Now().Add(patience); time.Now().Before(end); pause(context.Background(), 5*time.Millisecond) {
			if _, err = bed.Servers[i].Do(args...); err == nil {
				return
			}
		}
		bed.t.Errorf("nemesis: node %d is not healed by %q: %v", i, args, err)
	})
}

// Faults are those under which every property holds. So they can be mixed, several at once. Two
// that hang a node end together, with the first. The numbers are the rows of proof/README.md.
var Faults = []Fault{
	{"5 restart empty after more than the ttl, one", func(_ context.Context, bed *Testbed, random *rand.Rand) {
		bed.restart(bed.some(random, 1), bed.TTL+bed.TTL/4)
	}},
	{"7 SIGSTOP, one", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.stop(ctx, bed.some(random, 1), between(random, bed.TTL/2, 3*bed.TTL))
	}},
	{"7 SIGSTOP, minority", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.stop(ctx, bed.some(random, bed.minority()), between(random, bed.TTL/2, 3*bed.TTL))
	}},
	{"7 SIGSTOP, majority", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.stop(ctx, bed.some(random, bed.most()), between(random, bed.TTL/2, 3*bed.TTL))
	}},
	{"7 SIGSTOP, all", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.stop(ctx, bed.some(random, len(bed.Servers)), between(random, bed.TTL/2, 3*bed.TTL))
	}},
	{"8 CLIENT PAUSE", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		d := between(random, bed.TTL/2, 2*bed.TTL)
		nodes := bed.some(random, 1+random.IntN(len(bed.Servers)))
		command := []string{"CLIENT", "PAUSE", strconv.FormatInt(d.Milliseconds(), 10)}
		if random.IntN(2) == 1 {
			command = append(command, "WRITE") // from Redis 6.2 on; before, an error
		}
		bed.tell(nodes, command...)
		pause(ctx, d)
	}},
	{"8 DEBUG SLEEP", func(_ context.Context, bed *Testbed, random *rand.Rand) {
		d := between(random, bed.TTL/2, bed.TTL)
		bed.together(bed.some(random, 1+random.IntN(len(bed.Servers))), func(i int) {
			_, _ = bed.Servers[i].Do("DEBUG", "SLEEP", fmt.Sprintf("%.3f", d.Seconds()))
		})
	}},
	{"8 a busy script", func(_ context.Context, bed *Testbed, random *rand.Rand) {
		turns := strconv.Itoa(5_000_000 + random.IntN(10_000_000))
		bed.together(bed.some(random, bed.minority()), func(i int) {
			_, _ = bed.Servers[i].Do("EVAL", "local n = 0 for i = 1, tonumber(ARGV[1]) do n = n + i end return n", "0", turns)
		})
	}},
	{"9 delays", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		for i := range bed.Proxies {
			requests, replies := between(random, time.Millisecond, bed.TTL), between(random, time.Millisecond, bed.TTL)
			switch random.IntN(4) {
			case 0:
				bed.Proxies[i].Delay(requests, 0)
			case 1:
				bed.Proxies[i].Delay(0, replies)
			case 2:
				bed.Proxies[i].Delay(requests/10, replies/10)
			}
		}
		pause(ctx, between(random, bed.TTL, 4*bed.TTL))
		bed.each(bed.all(), func(i int) { bed.Proxies[i].Delay(0, 0) })
	}},
	{"10 black hole, minority", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.through(ctx, bed.some(random, bed.minority()), between(random, bed.TTL, 8*bed.TTL), func(i int, on bool) { bed.Proxies[i].BlackHole(on) })
	}},
	{"10 black hole, majority", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.through(ctx, bed.some(random, bed.most()), between(random, bed.TTL, 4*bed.TTL), func(i int, on bool) { bed.Proxies[i].BlackHole(on) })
	}},
	{"10 connections refused", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.through(ctx, bed.some(random, 1+random.IntN(len(bed.Servers))), between(random, bed.TTL, 4*bed.TTL), func(i int, on bool) { bed.Proxies[i].Refuse(on) })
	}},
	{"10 replies held back", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.through(ctx, bed.some(random, 1+random.IntN(len(bed.Servers))), between(random, bed.TTL, 4*bed.TTL), func(i int, on bool) { bed.Proxies[i].HoldReplies(on) })
	}},
	{"11 connections cut", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		for range 5 {
			i := random.IntN(len(bed.Proxies))
			switch random.IntN(3) {
			case 0:
				bed.Proxies[i].Cut()
			case 1:
				bed.Proxies[i].CutAfterRequest([]string{"SET", "EVALSHA"}[random.IntN(2)])
			case 2:
				bed.Proxies[i].CutAfterReplyBytes(random.IntN(40))
			}
			pause(ctx, between(random, 0, bed.TTL/2))
		}
		bed.each(bed.all(), func(i int) { bed.Proxies[i].Heal() })
	}},
	{"12 one byte at a time", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		bed.through(ctx, bed.some(random, 1), between(random, bed.TTL, 4*bed.TTL), func(i int, on bool) {
			if on {
				bed.Proxies[i].Dribble(between(random, time.Millisecond, 50*time.Millisecond))
			} else {
				bed.Proxies[i].Dribble(0)
			}
		})
	}},
	{"13 requests held back, connections cut", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		nodes := bed.some(random, 1+random.IntN(len(bed.Servers)))
		bed.each(nodes, func(i int) { bed.Proxies[i].HoldRequests(true) })
		pause(ctx, between(random, bed.TTL/4, bed.TTL))
		bed.each(nodes, func(i int) { bed.Proxies[i].Cut() }) // later commands, the release too, use another connection
		pause(ctx, between(random, 0, bed.TTL/2))
		bed.each(nodes, func(i int) { bed.Proxies[i].HoldRequests(false) })
	}},
	{"18 out of memory", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		nodes := bed.some(random, 1+random.IntN(len(bed.Servers)))
		bed.tell(nodes, "CONFIG", "SET", "maxmemory", "1")
		pause(ctx, between(random, bed.TTL/2, 2*bed.TTL))
		bed.heal(nodes, "CONFIG", "SET", "maxmemory", "0")
	}},
	{"18 permission denied", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		nodes := bed.some(random, 1+random.IntN(len(bed.Servers)))
		bed.tell(nodes, "ACL", "SETUSER", "default", "-set", "-evalsha")
		pause(ctx, between(random, bed.TTL/2, 2*bed.TTL))
		bed.heal(nodes, "ACL", "SETUSER", "default", "+@all")
	}},
	{"18 read only, scripts flushed", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		nodes := bed.some(random, bed.minority())
		bed.tell(nodes, "REPLICAOF", "127.0.0.1", "1")
		bed.tell(bed.all(), "SCRIPT", "FLUSH")
		pause(ctx, between(random, bed.TTL/2, 2*bed.TTL))
		bed.heal(nodes, "REPLICAOF", "NO", "ONE")
	}},
	{"19 clogged one by one", func(ctx context.Context, bed *Testbed, random *rand.Rand) {
		for _, i := range bed.some(random, len(bed.Proxies)) {
			bed.Proxies[i].BlackHole(true)
			pause(ctx, between(random, 0, bed.TTL/2))
		}
		for _, i := range bed.some(random, len(bed.Proxies)) {
			bed.Proxies[i].BlackHole(false)
			pause(ctx, between(random, 0, bed.TTL/2))
		}
	}},
}

func (bed *Testbed) all() []int {
	nodes := make([]int, len(bed.Servers))
	for i := range nodes {
		nodes[i] = i
	}
	return nodes
}

// through turns a fault of the proxies on for d.
func (bed *Testbed) through(ctx context.Context, nodes []int, d time.Duration, set func(i int, on bool)) {
	bed.each(nodes, func(i int) { set(i, true) })
	pause(ctx, d)
	bed.each(nodes, func(i int) { set(i, false) })
}

// together calls do for several nodes at once, where do blocks.
func (bed *Testbed) together(nodes []int, do func(i int)) {
	var all sync.WaitGroup
	for _, i := range nodes {
		all.Go(func() { do(i) })
	}
	all.Wait()
}
