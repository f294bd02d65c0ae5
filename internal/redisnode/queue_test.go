package redisnode_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// listening returns a channel of the tokens that are announced on "grants".
func listening(t *testing.T, s *redisnode.Redis) <-chan string {
	told, ready := make(chan string, 100), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Listen(ctx, "grants", func() { close(ready) }, func(p node.Push) {
			if p.Nonce != "nonce-of-"+p.Token {
				told <- "the nonce of another: " + p.Nonce
			}
			if p.Number == 0 { // the claim is to join again
				return
			}
			told <- strings.TrimSuffix(fmt.Sprint(p.Token, " ", p.Number, " ", p.Fence), " 0")
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
	return told
}

// next receives from told.
func next(t *testing.T, told <-chan string) string {
	t.Helper()
	select {
	case text := <-told:
		return text
	case <-time.After(10 * time.Second):
		require.FailNow(t, "nothing was told")
		return ""
	}
}

// join joins the queue of "k", and returns the result.
func join(t *testing.T, s *redisnode.Redis, token string, e node.Entry) node.Command {
	t.Helper()
	e.Number++
	if e.Window == 0 {
		e.Window, e.Lease = 10*time.Second, 15*time.Second
	}
	if e.Channel == "" {
		e.Channel = "grants"
	}
	batch := []node.Command{{Kind: node.Join, Claim: node.NewClaim([]string{"k"}, token, 1), Entry: &e, Nonce: "nonce-of-" + token}}
	require.NoError(t, s.Do(t.Context(), batch))
	require.NoError(t, batch[0].Err)
	return batch[0]
}

func leave(t *testing.T, s *redisnode.Redis, token string) node.Outcome {
	t.Helper()
	batch := []node.Command{{Kind: node.Leave, Claim: node.NewClaim([]string{"k"}, token, 1)}}
	require.NoError(t, s.Do(t.Context(), batch))
	require.NoError(t, batch[0].Err)
	return batch[0].Outcome
}

func holding(t *testing.T, server *redistest.Server, token string) {
	t.Helper()
	_, err := server.Do("SET", "k", token, "PX", "60000")
	require.NoError(t, err)
}

func TestAQueueGrantsInOrder(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	now := time.Now().UnixMilli()
	holding(t, server, "holder")
	require.Equal(t, node.Refused, join(t, s, "second", node.Entry{Order: now - 20}).Outcome)
	require.Equal(t, node.Refused, join(t, s, "dead", node.Entry{Order: now - 30, Channel: "unheard"}).Outcome)
	c := join(t, s, "first", node.Entry{Order: now - 40, Number: 6})
	join(t, s, "first", node.Entry{Order: now - 40, Number: 4}) // overtaken
	require.Equal(t, "holder", c.Owner)
	require.InDelta(t, time.Minute, c.Held, float64(10*time.Second))

	require.Equal(t, node.Refused, leave(t, s, "another"))
	require.Equal(t, node.Done, leave(t, s, "holder"))
	require.Equal(t, "first 7", next(t, told))
	require.Equal(t, node.Done, join(t, s, "first", node.Entry{}).Outcome, "it has it")
	require.Equal(t, node.Done, leave(t, s, "first"))
	require.Equal(t, "second 1", next(t, told), "the dead is passed over")
	owner, _ := server.Get(t, "k")
	require.Equal(t, "second", owner)
	require.Equal(t, node.Done, leave(t, s, "second"))
	require.Empty(t, server.Keys(t))
}

// A replica passes on what its master publishes, to subscribers of whom the master does not know. A
// waiter that listened to the master before a failover may be one of them.
func TestAWaiterThatListensToAReplicaIsToldOfNoGrant(t *testing.T) {
	master := redistest.Start(t)
	host, port, _ := strings.Cut(master.Addr(), ":")
	replica := redistest.Start(t, "--replicaof", host, port)
	s, stale := connect(t, master), listening(t, connect(t, replica))
	holding(t, master, "holder")
	eventually.True(t, "the replica follows", func() bool { owner, _ := replica.Get(t, "k"); return owner == "holder" })
	for _, token := range []string{"first", "second"} {
		require.Equal(t, node.Refused, join(t, s, token, node.Entry{}).Outcome)
	}
	require.Equal(t, node.Done, leave(t, s, "holder"))
	require.Empty(t, master.Keys(t))
	_, err := master.Do("PUBLISH", "grants", "last nonce-of-last 1 0")
	require.NoError(t, err)
	require.Equal(t, "last 1", next(t, stale), "what it hears first")
}

// pushes returns a channel of all pushes on "pushes".
func pushes(t *testing.T, s *redisnode.Redis) <-chan node.Push {
	heard, ready := make(chan node.Push, 100), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Listen(ctx, "pushes", func() { close(ready) }, func(p node.Push) { heard <- p })
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
	return heard
}

// Every push carries the nonce that the claim gave this node. A grant has the second of the
// remaining waiters join again: it will soon be the first.
func TestAGrantAsksTheSecondWaiterToJoinAgain(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	heard := pushes(t, s)
	hears := func(want ...node.Push) {
		t.Helper()
		_, err := server.Do("PUBLISH", "pushes", "end - 1 0")
		require.NoError(t, err)
		var got []node.Push
		for {
			select {
			case p := <-heard:
				if p.Token == "end" {
					require.Equal(t, want, got)
					return
				}
				got = append(got, p)
			case <-time.After(10 * time.Second):
				require.FailNow(t, "not heard", "%+v", got)
			}
		}
	}
	grant := func(token string, number int64) node.Push {
		return node.Push{Token: token, Nonce: "nonce-of-" + token, Number: number}
	}
	now := time.Now().UnixMilli()
	wait := func(tokens ...string) {
		for i, token := range tokens {
			c := join(t, s, token, node.Entry{Order: now - 500 + int64(i), Channel: "pushes"})
			require.Equal(t, node.Refused, c.Outcome)
			require.Equal(t, i, c.Rank, "%s: so many are before it", token)
		}
	}
	holding(t, server, "holder")
	wait("a", "b", "c", "d")
	require.Equal(t, node.Done, leave(t, s, "holder"))
	hears(grant("a", 1), grant("c", 0))
	leave(t, s, "a")
	hears(grant("b", 1), grant("d", 0))
	leave(t, s, "b")
	hears(grant("c", 1)) // d is the only one, and joins often
	leave(t, s, "c")
	hears(grant("d", 1))
	leave(t, s, "d")
	hears()

	// A join that finds the key free grants it to the first waiter. The caller has just joined.
	for caller, told := range map[string][]node.Push{"b": {grant("a", 1), grant("c", 0)}, "c": {grant("a", 1)}} {
		holding(t, server, "holder")
		wait("a", "b", "c")
		_, err := server.Do("DEL", "k")
		require.NoError(t, err)
		c := join(t, s, caller, node.Entry{Channel: "pushes", Number: 1})
		require.Equal(t, node.Refused, c.Outcome)
		require.Equal(t, "a", c.Owner)
		hears(told...)
		_, err = server.Do("FLUSHALL")
		require.NoError(t, err)
	}
}

// A candidate that comes back with another token keeps its age, though an order counts only as
// far back as the wait has lasted.
func TestAPlaceIsKeptAcrossAChangeOfTheToken(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	now := time.Now().UnixMilli()
	holding(t, server, "holder")
	ago := func(d time.Duration) int64 { return now - d.Milliseconds() }
	require.Equal(t, 0, join(t, s, "later", node.Entry{Order: ago(10 * time.Second), Waited: 10 * time.Second}).Rank)
	require.Equal(t, 0, join(t, s, "elder", node.Entry{Order: ago(30 * time.Second), Waited: 30 * time.Second}).Rank)
	require.Equal(t, 2, join(t, s, "says so", node.Entry{Order: ago(60 * time.Second)}).Rank, "it has not waited that long")
	leave(t, s, "elder")
	require.Equal(t, 0, join(t, s, "elder, again", node.Entry{Order: ago(30 * time.Second), Waited: 30 * time.Second}).Rank)
}

// later returns in a later millisecond, by the server's clock.
func later(t *testing.T, server *redistest.Server) {
	t.Helper()
	now := func() int64 {
		answer, err := server.Do("EVAL", "local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)", "0")
		require.NoError(t, err)
		return answer.(int64)
	}
	began := now()
	eventually.True(t, "a millisecond has passed", func() bool { return now() > began })
}

func TestAClockThatIsWrongChangesAPlaceByLittle(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	now := time.Now().UnixMilli()
	holding(t, server, "holder")
	join(t, s, "ahead", node.Entry{Order: now + time.Hour.Milliseconds()})
	later(t, server)
	join(t, s, "right", node.Entry{Order: time.Now().UnixMilli()})
	join(t, s, "early", node.Entry{Order: now - 5000})
	join(t, s, "behind", node.Entry{Order: now - time.Hour.Milliseconds()})
	leave(t, s, "holder")
	var order []string
	for range 4 {
		token, _ := server.Get(t, "k")
		require.Equal(t, token+" 1", next(t, told))
		order = append(order, token)
		leave(t, s, token)
	}
	require.ElementsMatch(t, []string{"early", "behind"}, order[:2], "a second at most")
	require.Equal(t, []string{"ahead", "right"}, order[2:])
}

// A waiter with a short ttl has a short lease.
func TestAShortLeaseLeavesLongOnesAlone(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	holding(t, server, "holder")
	join(t, s, "long", node.Entry{})
	join(t, s, "short", node.Entry{Window: 10 * time.Millisecond, Lease: 15 * time.Millisecond})
	for _, key := range []string{"{k}:redlock:queue", "{k}:redlock:waiters"} {
		left, err := server.Do("PTTL", key)
		require.NoError(t, err)
		require.Greater(t, left.(int64), int64(20_000))
	}
}

// A waiter relies on a push.
func TestAGrantThatFailsIsNotToldOf(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	told := listening(t, s)
	holding(t, server, "holder")
	join(t, s, "waiter", node.Entry{})
	_, err := server.Do("ACL", "SETUSER", "default", "-set")
	require.NoError(t, err)
	require.Equal(t, node.Done, leave(t, s, "holder"))
	_, held := server.Get(t, "k")
	require.False(t, held)
	_, err = server.Do("PUBLISH", "grants", "nothing nonce-of-nothing 1 0")
	require.NoError(t, err)
	require.Equal(t, "nothing 1", next(t, told))
}

func TestALookTellsWhetherAClaimWaits(t *testing.T) {
	server := redistest.Start(t)
	s := connect(t, server)
	look := func() node.Outcome {
		c := do(t, s, node.Look, 0, node.NewClaim([]string{"k"}, "holder", 1))[0]
		require.NoError(t, c.Err)
		return c.Outcome
	}
	require.Equal(t, node.Done, look())
	holding(t, server, "holder")
	require.Equal(t, node.Done, look(), "a holder does not wait")
	join(t, s, "waiter", node.Entry{})
	require.Equal(t, node.Refused, look())
	leave(t, s, "waiter")
	require.Equal(t, node.Done, look())
	_, err := server.Do("SET", "{k}:redlock:queue", "foreign")
	require.NoError(t, err)
	require.Equal(t, node.Refused, look(), "that is not known")
}
