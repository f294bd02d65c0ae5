package node

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

// pushes reports whether the deployment tells of grants. A Cluster would pass what
// is published on to all its servers, which would cost more than waiting does.
func (s *Redis) pushes() bool { return s.topology == nil }

// Listen implements Store, on a connection of its own.
func (s *Redis) Listen(ctx context.Context, channel string, ready func(), heard func(token string, number, fence int64)) error {
	if !s.pushes() {
		return ErrNoPush
	}
	client, err := s.connected()
	if err != nil {
		return NotConnected(err)
	}
	s.mu.Lock()
	moved := s.moved
	s.mu.Unlock()
	conn, free := client.Dedicate()
	defer free()
	defer conn.Close() // it is not put back: it has subscribed
	broken := conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if s.Kind == "subscribe" {
				ready()
			}
		},
		OnMessage: func(m rueidis.PubSubMessage) {
			token, rest, _ := strings.Cut(m.Message, " ")
			first, second, _ := strings.Cut(rest, " ")
			number, err := strconv.ParseInt(first, 10, 64)
			fence, err2 := strconv.ParseInt(second, 10, 64)
			if err == nil && err2 == nil {
				heard(token, number, fence)
			}
		},
	})
	if err := conn.Do(ctx, conn.B().Subscribe().Channel(channel).Build()).Error(); err != nil {
		return discreet(err)
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
