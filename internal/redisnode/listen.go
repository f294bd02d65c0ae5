package redisnode

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

// Channels implements node.Backend. A Cluster passes a message of PUBLISH on to all its servers,
// which would cost more than polling does. SPUBLISH stays on the server that has the channel's
// slot, so on a Cluster each key has a channel.
func (s *Redis) Channels() node.Channels {
	if s.topology != nil {
		return node.ChannelPerKey
	}
	return node.ChannelPerLocker
}

// Listen implements node.Backend: on a connection of its own or, of a Cluster, on the one to the
// server that has the channel's slot.
func (s *Redis) Listen(ctx context.Context, channel string, ready func(), heard func(node.Push)) error {
	client, err := s.connected()
	if err != nil {
		return node.NotConnected(err)
	}
	if s.topology != nil {
		return s.topology.shards.listen(ctx, client, &subscription{channel: channel, ready: ready, heard: heard})
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
		return brokenBy(err)
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
		<-answer //nolint:errcheck // the connection is freed next
		return wireError(brokenBy(err))
	}
}

// brokenBy returns the error of a connection that was closed with err.
func brokenBy(err error) error {
	if err == nil {
		return errors.New("the connection was closed")
	}
	return err
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
