package redisnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

func FuzzSlot(f *testing.F) {
	for _, key := range []string{"", "foo", "123456789", "{foo}bar", "{}a", "a{}{b}", "{a", "}{", "a{x}{y}", "{{x}}", "{x", "{\x00}", "\xff{\xfe}", "{a}\r\n", strings.Repeat("x", 300)} {
		f.Add(key)
	}
	server := redistest.Start(f, "--cluster-enabled", "yes")
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true, DisableCache: true})
	require.NoError(f, err)
	f.Cleanup(client.Close)
	f.Fuzz(func(t *testing.T, key string) {
		ours := slot(key)
		require.Less(t, ours, uint16(16384))
		// The top bit is set for a client that is not a Cluster's.
		get := client.B().Get().Key(key).Build()
		require.Equal(t, get.Slot()&^(1<<15), ours, "rueidis'")
		servers, err := client.Do(t.Context(), client.B().ClusterKeyslot().Key(key).Build()).AsInt64()
		require.NoError(t, err)
		require.Equal(t, uint16(servers), ours, "the server's")
	})
}

// replies are what a server might answer, right and wrong, in RESP2 and RESP3.
var replies = []string{
	"+OK\r\n", "$2\r\nOK\r\n", "=6\r\ntxt:OK\r\n", "+ok\r\n", "+OKAY\r\n", "+QUEUED\r\n", "+\r\n", "+1\r\n",
	"$-1\r\n", "*-1\r\n", "_\r\n", "~-1\r\n", "%-1\r\n", ".\r\n",
	":0\r\n", ":1\r\n", ":2\r\n", ":3\r\n", ":7\r\n", ":-1\r\n", ":-0\r\n", ":01\r\n", ":+1\r\n", ":\r\n", ":1.0\r\n", ": 1\r\n",
	":4294967297\r\n", ":9223372036854775807\r\n", ":-9223372036854775808\r\n", ":18446744073709551616\r\n", ":18446744073709551617\r\n",
	"$1\r\n1\r\n", "$1\r\n0\r\n", "$2\r\n01\r\n", "$0\r\n\r\n", "$3\r\nabc\r\n", "$3\r\nab", "$10\r\nabc\r\n",
	"(1\r\n", ",1\r\n", ",1.0\r\n", ",inf\r\n", ",nan\r\n", "#t\r\n", "#f\r\n", "#x\r\n",
	"*0\r\n", "*1\r\n:1\r\n", "*2\r\n:1\r\n:1\r\n", "*1\r\n+OK\r\n", "~1\r\n:1\r\n", "%1\r\n+OK\r\n:1\r\n", "%0\r\n", "*1\r\n*1\r\n*1\r\n:1\r\n", "*2\r\n:1\r\n",
	"*2\r\n:0\r\n$3\r\nabc\r\n", "*2\r\n:0\r\n+\r\n", "~2\r\n:0\r\n$0\r\n\r\n", "*2\r\n:1\r\n$3\r\nabc\r\n", "*2\r\n:0\r\n:0\r\n", "*2\r\n:0\r\n_\r\n", "*3\r\n:0\r\n:1\r\n$0\r\n\r\n", "*2\r\n:0\r\n$3\r\nab",
	"|1\r\n+ttl\r\n:3600\r\n:1\r\n", "|1\r\n+ttl\r\n:3600\r\n+OK\r\n", "|1\r\n+ttl\r\n:3600\r\n_\r\n", "|1\r\n+a\r\n", "*1\r\n>2\r\n+message\r\n+x\r\n",
	"-ERR\r\n", "-\r\n", "-ERR unknown command\r\n", "-NOSCRIPT No matching script.\r\n", "-NOSCRIPT\r\n", "-MOVED 1 127.0.0.1:1\r\n", "-MOVED\r\n", "-ASK\r\n", "-ASK 1 x\r\n",
	"-TRYAGAIN x\r\n", "-CLUSTERDOWN x\r\n", "-LOADING x\r\n", "-BUSY x\r\n", "-READONLY x\r\n", "-OOM x\r\n", "-NOPERM x\r\n", "-NOAUTH x\r\n", "-WRONGTYPE x\r\n", "-1\r\n", "-OK\r\n", "-redis nil message\r\n",
	"!3\r\nERR\r\n", "!8\r\nNOSCRIPT\r\n", "!-1\r\n", "!0\r\n\r\n", "-%s%d%!(EXTRA)\r\n", "-\x00\x1b[31m\r\n",
	"", "\r\n", "\n", "+", ":1", ":1\n", ":1\r", "+OK", "+OK\r", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x15\x03\x01\x00\x02\x02", "OK\r\n", "1\r\n", "*1\r\n", "*1\r\n$1\r\n", "?\r\n",
}

// Any answer of a server counts as granted, refused, extended, refilled or deleted only if it is
// exactly the answer that means this, and as an error otherwise.
func FuzzReplies(f *testing.F) {
	for _, reply := range replies {
		f.Add([]byte(reply), false)
	}
	for _, reply := range replies {
		f.Add([]byte(reply), true)
	}
	server := startFake(f)
	clients := make(map[bool]rueidis.Client) // by protocol: each is used until its connection breaks
	f.Cleanup(func() {
		for _, client := range clients {
			client.Close()
		}
	})
	f.Fuzz(func(t *testing.T, reply []byte, resp2 bool) {
		said, end := scan(reply, 0)
		if end == harmful {
			return
		}
		then := goOn
		if end == broken {
			then = closeConn
		}
		server.answer(reply[:said.size], then, resp2)
		client, err := clients[resp2], error(nil)
		if client == nil {
			client, err = rueidis.NewClient(server.option())
			require.NoError(t, err)
			clients[resp2] = client
		}
		if end == broken {
			defer func() {
				client.Close()
				delete(clients, resp2)
			}()
		}
		s := Wrap(client).(*Redis)

		one, two := node.NewClaim([]string{"k"}, "token", 1), node.NewClaim([]string{"k", "l"}, "token", 1)
		for _, c := range []struct {
			op      string
			batch   []node.Command
			answers map[node.Outcome][]meaning
		}{
			{"SET", []node.Command{{Kind: node.Acquire, Claim: one}}, map[node.Outcome][]meaning{node.Done: {{kind: '+', text: "OK"}}, node.Refused: {{kind: '_'}}}},
			{"SET GET", []node.Command{{Kind: node.Acquire, Claim: one}}, map[node.Outcome][]meaning{node.Done: {{kind: '_'}}, node.Refused: value(said, reply)}},
			{"acquire", []node.Command{{Kind: node.Acquire, Claim: two}}, map[node.Outcome][]meaning{node.Done: {integer(1)}, node.Refused: {owner('*', '$'), owner('*', '+'), owner('~', '$'), owner('~', '+')}}},
			{"acquire again", []node.Command{{Kind: node.Acquire, Claim: one, Script: true}}, map[node.Outcome][]meaning{node.Done: {integer(1)}, node.Refused: {owner('*', '$'), owner('*', '+'), owner('~', '$'), owner('~', '+')}}},
			{"read", []node.Command{{Kind: node.Read, Claim: two}}, map[node.Outcome][]meaning{node.Done: {integer(1)}, node.Refused: {owner('*', '$'), owner('*', '+'), owner('~', '$'), owner('~', '+')}}},
			{"extend", []node.Command{{Kind: node.Extend, Claim: two}, {Kind: node.Extend, Claim: two}}, map[node.Outcome][]meaning{node.Done: {integer(1)}, node.Refilled: {integer(2)}, node.Refused: {integer(0)}}},
			{"release", []node.Command{{Kind: node.Release, Claim: two}, {Kind: node.Release, Claim: two}}, map[node.Outcome][]meaning{node.Done: {integer(2)}, node.Refused: {integer(0), integer(1)}}},
			{"ping", []node.Command{{Kind: node.Ping, Claim: one}}, map[node.Outcome][]meaning{node.Done: {integer(1)}}},
			{"look", []node.Command{{Kind: node.Look, Claim: one}, {Kind: node.Look, Claim: one}}, map[node.Outcome][]meaning{node.Done: {integer(0)}, node.Refused: {integer(1)}}},
		} {
			for i := range c.batch {
				c.batch[i].TTL = time.Minute
			}
			s.able.word.Store(uint64(mute))
			if c.op == "SET GET" {
				s.able.word.Store(uint64(tells))
			}
			_ = s.Do(t.Context(), c.batch)
			for _, command := range c.batch {
				check(t, said, end, c.op, command, c.answers)
			}
		}
	})
}

// Half a reply on a connection that stays open blocks a call until its ctx ends, or until rueidis
// finds the connection dead.
func TestHalfAReplyBlocksNoCallForEver(t *testing.T) {
	for _, cancelled := range []bool{true, false} {
		for _, half := range []string{"", ":", ":1", "+OK", "$10\r\nabc", "*2\r\n:1\r\n"} {
			t.Run(fmt.Sprintf("cancelled=%v/%q", cancelled, half), func(t *testing.T) {
				server := startFake(t)
				server.answer([]byte(half), fallSilent, false)
				option := server.option()
				if !cancelled {
					option.ConnWriteTimeout, option.Dialer.KeepAlive = 100*time.Millisecond, 50*time.Millisecond
				}
				var client rueidis.Client
				eventually.True(t, "the handshake is complete", func() bool { // on a loaded machine that takes longer
					var err error
					if client, err = rueidis.NewClient(option); err != nil && client != nil {
						client.Close()
					}
					return err == nil
				})
				defer client.Close()
				defer server.hangUp()
				s := Wrap(client)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for _, kind := range []node.Kind{node.Acquire, node.Extend, node.Release, node.Ping, node.Look, node.Read} {
					name := fmt.Sprint("kind ", kind)
					call := func() error {
						batch := []node.Command{{Kind: kind, Claim: node.NewClaim([]string{"k"}, "token", 1), TTL: time.Minute}}
						_ = s.Do(ctx, batch)
						return batch[0].Err
					}
					done := make(chan error, 1)
					go func() { done <- call() }()
					if cancelled {
						<-server.asked
						cancel()
					}
					select {
					case err := <-done:
						require.Error(t, err, name)
						require.Equal(t, cancelled, errors.Is(err, context.Canceled), "%s: %v", name, err)
					case <-time.After(eventually.Soon):
						t.Fatalf("%s hangs", name)
					}
				}
			})
		}
	}
}

// check compares the outcome of a command with the answer that the server gave. answers are the
// answers that are not errors, by outcome.
func check(t *testing.T, said meaning, end ending, op string, c node.Command, answers map[node.Outcome][]meaning) {
	t.Helper()
	if c.Outcome == node.Unknown {
		require.Error(t, c.Err)
		require.NotPanics(t, func() { _ = c.Err.Error() })
		require.False(t, errors.Is(c.Err, context.Canceled))
		for _, right := range answers {
			for _, answer := range right {
				require.False(t, end == complete && answer.same(said), "%s: the right answer %+v was an error: %v", op, said, c.Err)
			}
		}
		return
	}
	require.NoError(t, c.Err)
	require.Equal(t, complete, end, "%s: half an answer was taken for %v", op, c.Outcome)
	for _, answer := range answers[c.Outcome] {
		if answer.same(said) {
			return
		}
	}
	bulk := meaning{kind: '$', text: "OK"} // as good as a simple string
	require.True(t, op == "SET" && c.Outcome == node.Done && said.same(bulk), "%s: %+v was taken for %v", op, said, c.Outcome)
}

// meaning is the content of one reply.
type meaning struct {
	kind byte   // of RESP3, with '-' for all errors and '_' for all nulls
	text string // of an array, the kinds of its elements, and their integers
	size int    // in bytes, with attributes
}

// value returns the valid answers of SET with GET for a key that is held: its value, or the error
// that it is of another type. OK as a value is the answer of a server that does not know GET.
func value(said meaning, reply []byte) []meaning {
	text := said.kind == '$' && reply[0] != '=' || said.kind == '+'
	if text && said.text != "OK" || bytes.HasPrefix(reply, []byte("-WRONGTYPE ")) {
		return []meaning{said}
	}
	return nil
}

func integer(n int) meaning { return meaning{kind: ':', text: fmt.Sprint(n)} }

// owner is the refusal of an acquisition: 0, and a string.
func owner(kind, element byte) meaning { return meaning{kind: kind, text: ":0" + string(element)} }

func (a meaning) same(b meaning) bool { return a.kind == b.kind && a.text == b.text }

// ending says whether a reply is whole.
type ending string

const (
	complete ending = "complete"
	broken   ending = "broken"  // too short, or no reply: the connection is to be closed after it
	harmful  ending = "harmful" // not to be sent: rueidis panics at it, or allocates without a limit, or wants more
)

// scan reads one reply as rueidis does, which accepts more than the protocol: any two bytes as a
// line end, leading zeros, integers modulo 2^64.
func scan(b []byte, depth int) (meaning, ending) {
	if len(b) == 0 {
		return meaning{}, broken
	}
	if depth > 20 {
		return meaning{}, harmful
	}
	line, _, ended := bytes.Cut(b[1:], []byte("\n"))
	a := meaning{kind: b[0], size: 1 + len(line) + 1}
	whole := func() (meaning, ending) {
		if a.size > len(b) {
			return meaning{size: len(b)}, broken
		}
		return a, complete
	}
	half := func() (meaning, ending) { return meaning{size: len(b)}, broken }
	switch a.kind {
	case '+', '-', ',', '(':
		if !ended || len(line) == 0 {
			return half()
		}
		if !bytes.HasSuffix(line, []byte("\r")) {
			return meaning{}, harmful // rueidis may look two bytes further than the line, and wait for them
		}
		a.text = string(line[:len(line)-1])
		return whole()
	case '#':
		a.size = 4
		return whole()
	case '_', '.':
		a.size = 3
		return whole()
	case ':', '$', '!', '=', '*', '~', '%', '|', '>':
	default:
		return half()
	}
	n, ok := number(line)
	switch {
	case bytes.HasPrefix(line, []byte("?")) && ended && len(line) > 1:
		return meaning{}, harmful // streamed: not sent to us, and not read by scan
	case !ok || !ended:
		return half()
	case a.kind == ':':
		a.text = fmt.Sprint(n)
		return whole()
	case n == -1 && a.kind != '%' && a.kind != '|':
		a.kind = '_'
		return whole()
	case n < 0 || n > 1000 || a.kind == '>' && depth == 0:
		return meaning{}, harmful
	}
	switch a.kind {
	case '$', '!', '=':
		body := b[a.size:]
		a.size += int(n) + 2
		if a.size > len(b) {
			return half()
		}
		a.text = string(body[:n])
		if a.kind == '!' {
			a.kind = '-'
		}
		return a, complete
	case '%', '|':
		n *= 2
	}
	for range n {
		element, end := scan(b[a.size:], depth+1)
		if end != complete {
			element.size += a.size
			return element, end
		}
		a.size += element.size
		if a.text += string(element.kind); element.kind == ':' {
			a.text += element.text
		}
	}
	if a.kind != '|' {
		return a, complete
	}
	after, end := scan(b[a.size:], depth) // an attribute precedes its value
	after.size += a.size
	return after, end
}

// number is the integer on a line, modulo 2^64.
func number(line []byte) (int64, bool) {
	if len(line) < 2 {
		return 0, false
	}
	digits, negative := bytes.CutPrefix(line[:len(line)-1], []byte("-"))
	n := new(big.Int)
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n.Add(n.Mul(n, big.NewInt(10)), big.NewInt(int64(c-'0')))
	}
	if negative {
		n.Neg(n)
	}
	return int64(n.And(n, new(big.Int).SetUint64(1<<64-1)).Uint64()), true
}
