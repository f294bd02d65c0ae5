package node

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/rueidis"
)

var (
	//go:embed acquire.lua
	acquireText string
	//go:embed extend.lua
	extendText string
	//go:embed release.lua
	releaseText string

	acquireScript = newScript(acquireText)
	extendScript  = newScript(extendText)
	releaseScript = newScript(releaseText)
)

// Redis is a Store over a rueidis client.
type Redis struct {
	cluster bool // the keys of one command must share a slot

	mu     sync.Mutex     // guards what follows
	client rueidis.Client // nil until the first connection stands
	err    error          // why there is none yet
	line   line           // of a client for one server

	// For a client that the Store dials, and so owns:
	stop  context.CancelFunc
	tried chan struct{} // closed when the first dial has ended, either way
	done  chan struct{} // closed when dialling is over
}

// Wrap is a Store over a client that stays the caller's.
func Wrap(client rueidis.Client) *Redis {
	return &Redis{client: client, cluster: client.Mode() == rueidis.ClientModeCluster}
}

// ClientName is what a client of the caller's is called in errors: its address,
// or its addresses.
func ClientName(client rueidis.Client) string {
	var addrs []string
	for addr := range client.Nodes() {
		addrs = append(addrs, addr)
	}
	return Name(addrs)
}

// Name is what errors call the deployment at these addresses.
func Name(addrs []string) string {
	addrs = slices.Sorted(slices.Values(addrs))
	switch len(addrs) {
	case 0:
		return "unknown address"
	case 1:
		return addrs[0]
	}
	return fmt.Sprintf("%s and %d more", addrs[0], len(addrs)-1)
}

// Dial is a Store that makes its own client. rueidis.NewClient dials at once
// and fails if nobody answers, so this goes on in the background until it
// succeeds; until then every call is answered at once, with the reason.
func Dial(option rueidis.ClientOption) *Redis {
	s := &Redis{
		cluster: len(option.InitAddress) > 1 && option.Sentinel.MasterSet == "" && !option.ForceSingleClient,
		err:     errors.New("not connected yet"),
		tried:   make(chan struct{}),
		done:    make(chan struct{}),
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	go s.dial(ctx, option)
	return s
}

// Tried is closed when the first dial has ended, either way.
func (s *Redis) Tried() <-chan struct{} { return s.tried }

func (s *Redis) dial(ctx context.Context, option rueidis.ClientOption) {
	defer close(s.done)
	tried := sync.OnceFunc(func() { close(s.tried) })
	defer tried()
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(time.Second),
		backoff.WithMaxElapsedTime(0))
	for ctx.Err() == nil {
		client, err := rueidis.NewClient(option)
		if err == nil {
			s.mu.Lock()
			s.client = client
			s.mu.Unlock()
			return
		}
		if client != nil { // a single client is returned even when its dial failed
			client.Close()
		}
		s.mu.Lock()
		s.err = fmt.Errorf("not connected: %w", discreet(err))
		s.mu.Unlock()
		tried()
		timer := time.NewTimer(pauses.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// connected is the client, and the call that may be made now.
func (s *Redis) connected() (rueidis.Client, try, error) {
	s.mu.Lock()
	client, err := s.client, s.err
	s.mu.Unlock()
	switch {
	case client == nil:
		return nil, try{}, notRun{err}
	case s.cluster: // of which some servers may be away and others not
		return client, try{}, nil
	}
	attempt, err := s.line.begin()
	return client, attempt, err
}

// Close closes the client if the Store made it.
func (s *Redis) Close() {
	if s.stop == nil {
		return
	}
	s.stop()
	<-s.done
	if s.client != nil {
		s.client.Close()
	}
}

// Check refuses keys of several slots on a Cluster: no script can hold them
// all or none, and rueidis' builders panic on them.
func (s *Redis) Check(keys []string) error {
	if !s.cluster {
		return nil
	}
	for _, key := range keys[1:] {
		if slot(key) != slot(keys[0]) {
			return fmt.Errorf("keys %q and %q are in different slots of a Cluster: give them a common hash tag, such as {order:1}:a and {order:1}:b", keys[0], key)
		}
	}
	return nil
}

// Acquire is SET NX PX for one key, and a script for several. Only the very
// answers that these give are taken for one: whatever else comes is an error,
// after which the key may be there.
func (s *Redis) Acquire(ctx context.Context, keys []string, token string, ttl time.Duration) (bool, error) {
	client, try, err := s.connected()
	if err != nil {
		return false, err
	}
	if len(keys) == 1 {
		result := client.Do(ctx, client.B().Set().Key(keys[0]).Value(token).Nx().PxMilliseconds(millis(ttl)).Build())
		try.heard(result.NonRedisError())
		reply, err := result.ToMessage()
		if rueidis.IsRedisNil(err) {
			return false, nil
		}
		if _, answered := rueidis.IsRedisErr(err); answered {
			return false, notRun{discreet(err)} // the server said no: it did not set the key
		}
		if err != nil {
			return false, wireError(err)
		}
		if text, err := reply.ToString(); !reply.IsString() || err != nil || text != "OK" {
			return false, errors.New("unexpected reply to SET")
		}
		return true, nil
	}
	results := acquireScript.run(ctx, client, []call{{keys, []string{token, millisArg(ttl)}}})
	try.heard(results[0].NonRedisError())
	granted, err := answer(results[0], 1)
	return granted == 1, err
}

// answer is a script's, which is an integer from 0 to most.
func answer(result rueidis.RedisResult, most int) (int, error) {
	n, err := result.ToInt64()
	switch {
	case err != nil:
		return 0, wireError(err)
	case n < 0 || n > int64(most):
		return 0, fmt.Errorf("unexpected reply to a script: %d", n)
	}
	return int(n), nil
}

// Extend is one script call per extension.
func (s *Redis) Extend(ctx context.Context, batch []Extension) {
	client, try, err := s.connected()
	if err != nil {
		for i := range batch {
			batch[i].Err = err
		}
		return
	}
	calls := make([]call, len(batch))
	for i, e := range batch {
		calls[i] = call{e.Claim.Keys, []string{e.Claim.Token, millisArg(e.TTL)}}
	}
	results := extendScript.run(ctx, client, calls)
	try.heard(results[len(results)-1].NonRedisError())
	for i, result := range results {
		switch said, err := answer(result, 2); {
		case err != nil:
			batch[i].Err = err
		case said == 1:
			batch[i].Outcome = Extended
		case said == 2:
			batch[i].Outcome = Refilled
		default:
			batch[i].Outcome = Taken
		}
	}
}

// Release is one script call per claim.
func (s *Redis) Release(ctx context.Context, batch []Deletion) {
	client, try, err := s.connected()
	if err != nil {
		for i := range batch {
			batch[i].Err = err
		}
		return
	}
	calls := make([]call, len(batch))
	for i, d := range batch {
		calls[i] = call{d.Claim.Keys, []string{d.Claim.Token}}
	}
	results := releaseScript.run(ctx, client, calls)
	try.heard(results[len(results)-1].NonRedisError())
	for i, result := range results {
		batch[i].Deleted, batch[i].Err = answer(result, len(batch[i].Claim.Keys))
	}
}

// millis is ttl in whole milliseconds, rounded up: a key never lives shorter
// than the validity that is counted from its ttl.
func millis(ttl time.Duration) int64 {
	whole := ttl / time.Millisecond
	if ttl%time.Millisecond > 0 {
		whole++
	}
	return int64(whole)
}

func millisArg(ttl time.Duration) string { return strconv.FormatInt(millis(ttl), 10) }

// wireError marks the errors after which the command certainly never left.
func wireError(err error) error {
	switch {
	case err == nil:
		return nil
	case dialFailed(err):
		return notRun{err}
	}
	return discreet(err)
}

// discreet is a server's error without what it repeats of the command: about
// one that it does not know, or does not let anybody use, Redis quotes the
// arguments, and so tokens and passwords.
func discreet(err error) error {
	if err == nil {
		return nil
	}
	text, _, quotes := strings.Cut(err.Error(), ", with args beginning with:")
	if !quotes {
		return err
	}
	return errors.New(text)
}
