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
	if err := conn.Do(ctx, conn.B().Subscribe().Channel(channel).Build()).Error(); err != nil {
		return wireError(err)
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
