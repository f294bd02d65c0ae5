package redisnode

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// CanPush implements node.Backend. A Cluster would pass each message on to all its servers,
// which would cost more than polling does.
func (s *Redis) CanPush() bool { return s.topology == nil }

// Listen implements node.Backend, on a connection of its own.
func (s *Redis) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	if !s.CanPush() {
		return node.ErrNoPush
	}
	client, err := s.connected()
	if err != nil {
		return node.NotConnected(err)
	}
	s.mu.Lock()
	moved := s.moved
	s.mu.Unlock()
	conn, free := client.Dedicate()
	defer free()
	defer conn.Close() // it is not reused: it has subscribed
	broken := conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if s.Kind == "subscribe" {
				ready()
			}
		},
		OnMessage: func(m rueidis.PubSubMessage) {
			if p, ok := parsePush(m.Message); ok {
				heard(p)
			}
		},
	})
	if err := subscribe(ctx, conn, channel, broken); err != nil {
		return err
	}
	select {
	case err := <-broken:
		if err == nil {
			err = errors.New("the connection was closed")
		}
		return err
	case <-moved:
		return errMoved
	case <-ctx.Done():
		return ctx.Err()
	}
}

// subscribe returns once the server has answered SUBSCRIBE, or the connection is broken. rueidis
// repeats SUBSCRIBE if there was no answer. With RESP2 it does so on the connection that is
// broken, without end: so a context of its own ends that.
func subscribe(ctx context.Context, conn rueidis.DedicatedClient, channel string, broken <-chan error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- conn.Do(ctx, conn.B().Subscribe().Channel(channel).Build()).Error() }()
	select {
	case err := <-answer:
		if err != nil {
			return wireError(err)
		}
		return nil
	case err := <-broken:
		cancel()
		<-answer // the connection is freed next
		if err == nil {
			err = errors.New("the connection was closed")
		}
		return wireError(err)
	}
}

// parsePush reads a message of queue.lua: token, nonce, number and fence.
func parsePush(text string) (p node.Push, ok bool) {
	words := strings.Split(text, " ")
	if len(words) != 4 {
		return p, false
	}
	number, err := strconv.ParseInt(words[2], 10, 64)
	fence, err2 := strconv.ParseInt(words[3], 10, 64)
	if err != nil || err2 != nil || number < 0 || fence < 0 {
		return p, false
	}
	return node.Push{Token: words[0], Nonce: words[1], Number: number, Fence: fence}, true
}
