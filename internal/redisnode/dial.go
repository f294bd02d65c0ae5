package redisnode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/redis/rueidis"
)

// Dial returns a Backend that makes its own client. rueidis.NewClient dials at once, and fails
// if no server answers. So Dial retries in the background until it succeeds. Until then every
// command fails at once, with the reason.
//
// If credentials is not nil, it is asked for the user and the password of every connection.
func Dial(option rueidis.ClientOption, credentials Credentials) *Redis {
	s := &Redis{
		err:       errors.New("the first dial has not ended"),
		sentinels: option.Sentinel.MasterSet != "",
		moved:     make(chan struct{}),
		tried:     make(chan struct{}),
		done:      make(chan struct{}),
	}
	if IsCluster(option) {
		s.topology = newTopology()
	} else if s.resp2 = option.AlwaysRESP2; option.DialFn == nil {
		s.connections = &connections{changed: s.able.reset}
		option.DialCtxFn = s.connections.through(option.DialCtxFn)
		// A Sentinel group's client changes its connection without notice.
		s.able.counted = !s.sentinels
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	if credentials != nil {
		option = credentials.to(ctx, option)
	}
	go s.dial(ctx, option)
	return s
}

// IsCluster reports whether a client made with option is that of a Cluster.
func IsCluster(option rueidis.ClientOption) bool {
	return option.Sentinel.MasterSet == "" && !option.ForceSingleClient
}

// Connect makes a client. It dials once.
func Connect(option rueidis.ClientOption) (rueidis.Client, error) {
	client, err := rueidis.NewClient(option)
	if err == nil && IsCluster(option) && client.Mode() != rueidis.ClientModeCluster {
		defer client.Close()
		return nil, notCluster(client)
	}
	if err == nil {
		return client, nil
	}
	if client != nil { // a single client is returned even when its dial failed
		client.Close()
	}
	return nil, dialError(err)
}

// notCluster is the error of a server that was to be one of a Cluster. If it refuses CLUSTER
// SLOTS, rueidis makes the client of a single server.
func notCluster(client rueidis.Client) error {
	err := client.Do(context.Background(), client.B().ClusterSlots().Build()).Error()
	if err == nil {
		err = errors.New("refused before")
	}
	return fmt.Errorf("not a Cluster: CLUSTER SLOTS: %w (for a single server, leave cluster=true out of the URL)", discreet(err))
}

// Tried returns a channel that is closed when the first dial has succeeded or failed.
func (s *Redis) Tried() <-chan struct{} { return s.tried }

func (s *Redis) dial(ctx context.Context, option rueidis.ClientOption) {
	defer close(s.done)
	tried := sync.OnceFunc(func() { close(s.tried) })
	defer tried()
	pauses := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(longestRedial),
		backoff.WithMaxElapsedTime(0))
	for ctx.Err() == nil {
		client, err := Connect(option)
		s.mu.Lock()
		s.client, s.err = client, err
		s.mu.Unlock()
		if err == nil {
			return
		}
		tried()
		timer := time.NewTimer(pauses.NextBackOff())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// longestRedial is the longest pause between tries to make the first connection, without the
// jitter, which is up to half of it.
const longestRedial = 400 * time.Millisecond
