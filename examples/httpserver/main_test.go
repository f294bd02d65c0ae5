package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
	"github.com/redis-kit/redlock/internal/testkit/syncbuf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is the program, running.
type service struct {
	t      *testing.T
	url    string
	client *http.Client
	out    syncbuf.Buffer
	stop   func() // stops the program, and waits until it has ended
}

func start(t *testing.T, args ...string) *service {
	s := &service{t: t, client: &http.Client{Transport: &http.Transport{}}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, &s.out, append([]string{"-addr", "127.0.0.1:0"}, args...)) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(t, <-ended)
		s.client.CloseIdleConnections()
	})
	t.Cleanup(s.stop)
	s.prints("msg=listening")
	s.url = regexp.MustCompile(`url=(http://\S+)`).FindStringSubmatch(s.out.String())[1]
	return s
}

// prints waits until the program has printed text.
func (s *service) prints(text string) {
	s.t.Helper()
	eventually.True(s.t, "it prints "+text, func() bool { return strings.Contains(s.out.String(), text) })
}

// Only the lock protects the balance: if two deposits ran at once, the race detector
// would report it, or the same balance would be returned twice.
func Test64DepositsToOneAccountTakeTurns(t *testing.T) {
	const deposits = 64
	real := redistest.StartN(t, 3)
	for name, args := range map[string][]string{
		"nodes in memory": {"-patience", "3m"},
		"real nodes":      {"-patience", "3m", "-nodes", strings.Join(redistest.URLs(real), ",")},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, args...)
			balances := make([]int, deposits)
			var all sync.WaitGroup
			for i := range deposits {
				all.Go(func() {
					resp, err := s.client.Post(s.url+"/accounts/ada/deposits?amount=1", "", nil)
					if !assert.NoError(t, err) {
						return
					}
					defer resp.Body.Close()
					body, err := io.ReadAll(resp.Body)
					assert.NoError(t, err)
					assert.Equal(t, http.StatusOK, resp.StatusCode, "%s", body)
					var answer struct{ Balance int }
					assert.NoError(t, json.Unmarshal(body, &answer))
					balances[i] = answer.Balance
				})
			}
			all.Wait()
			slices.Sort(balances)
			for i, balance := range balances {
				require.Equal(t, i+1, balance, "each saw the one before it, and no other: %v", balances)
			}
			s.stop()
			require.Equal(t, deposits, strings.Count(s.out.String(), `"Name":"redlock.hold"`))
		})
	}
}

func TestNodesThatAreNotOursAreNotKilled(t *testing.T) {
	s := start(t, "-nodes", redistest.Start(t).URL())
	answer, err := s.dump("DELETE", "/nodes", nil)
	require.NoError(t, err)
	require.Contains(t, answer, "404 Not Found")
}

func TestABadDepositChangesNothing(t *testing.T) {
	s := start(t)
	for _, amount := range []string{"", "0", "-1", "x", "1.5", "99999999999999999999"} {
		answer, err := s.dump("POST", "/accounts/ada/deposits?amount="+amount, nil)
		require.NoError(t, err)
		require.Contains(t, answer, "400 Bad Request", amount)
	}
	answer, err := s.dump("POST", "/accounts/ada/deposits?amount=1", nil)
	require.NoError(t, err)
	require.Contains(t, answer, `{"account":"ada","balance":1}`)
}

// The program, stopped in the middle of a request, serves it to its end.
func TestItStopsGracefully(t *testing.T) {
	s := start(t)
	answer := make(chan string, 1)
	go func() {
		text, err := s.dump("POST", "/payments", http.Header{"Idempotency-Key": {"7f3c"}})
		assert.NoError(t, err)
		answer <- text
	}()
	s.prints("msg=paying")
	s.stop()
	require.Contains(t, <-answer, "200 OK")
	require.NotContains(t, s.out.String(), "lock lost")
}

func TestRefusesBadArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-nodes", "r1:6379"},
		{"-nodes", "redis://r1:6379,redis://r1:6379"},
		{"-nodes", "redis://r1:6379,", "redis://r2:6379"},
		{"-addr", "nowhere:at:all"},
		{"-patience", "long"},
		{"-patience", "0s"},
	} {
		require.Error(t, run(t.Context(), io.Discard, args), fmt.Sprint(args))
	}
}
