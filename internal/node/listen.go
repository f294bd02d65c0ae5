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
func (s *Redis) Listen(ctx context.Context, channel string, ready func(), heard func(token string, number int64)) error {
	if !s.pushes() {
		return ErrNoPush
	}
	client, err := s.connected()
	if err != nil {
		return NotConnected(err)
	}
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
			token, text, ok := strings.Cut(m.Message, " ")
			if number, err := strconv.ParseInt(text, 10, 64); ok && err == nil {
				heard(token, number)
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
	case <-ctx.Done():
		return ctx.Err()
	}
}
