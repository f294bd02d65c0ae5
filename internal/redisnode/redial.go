package redisnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// redialPause is the shortest time from one redial to the next. A server that stays a replica is dialled once in it, if
// it is asked at all; one that has moved is found within it.
const redialPause = time.Second

// redial has the server dialled again, since it has said that it is not the one to write to. Its name is resolved again
// then. What is under way fails, and its outcome is unknown, as when a connection breaks.
//
// Connections that the Store has dialled are closed: for a Sentinel group, those to the Sentinels too, whereupon rueidis
// asks them for the master at once. Those of a caller's client are not known, so the server is asked to close the one
// that carries the commands, after it has answered all that came before. (ClientOption.ConnLifetime would not do: rueidis
// then sends commands again that a server did not answer within a second, against invariant 4.) The Sentinels are
// asked by rueidis itself every few seconds, and the servers of a Cluster whenever one says MOVED.
func (s *Redis) redial(ctx context.Context, client rueidis.Client) {
	s.demoted.Store(false)
	s.mu.Lock()
	now := time.Now()
	if s.topology != nil || !s.redialled.IsZero() && now.Sub(s.redialled) < redialPause {
		s.mu.Unlock()
		return
	}
	s.redialled = now
	close(s.moved) // a replica hears nothing of grants
	s.moved = make(chan struct{})
	s.mu.Unlock()
	if s.connections != nil {
		s.connections.close()
		return
	}
	if !s.sentinels {
		client.Do(ctx, client.B().Arbitrary("QUIT").Build())
	}
}

// errMoved ends Listen.
var errMoved = errors.New("the server is a replica")

// isReplica is the error of a server that has said that it is not the one to write to.
func (s *Redis) isReplica(err error) error {
	switch {
	case s.topology != nil:
		return err
	case s.sentinels:
		return fmt.Errorf("%w (the server is a replica, or still loads its data: the Sentinels are asked again which is the master)", err)
	case s.connections == nil:
		return fmt.Errorf("%w (the server is a replica, or still loads its data: its address is dialled again, if Tune has set up the client)", err)
	}
	return fmt.Errorf("%w (the server is a replica, or still loads its data: its address is dialled again)", err)
}

// connections are those that a Store has dialled and that are open.
type connections struct {
	changed func() // is called when one is made, before it is used, and when one is closed

	mu   sync.Mutex // guards what follows
	open map[*connection]struct{}
}

// connection takes itself out of its connections when it is closed.
type connection struct {
	net.Conn
	of *connections
}

// through returns dial with connections that c knows.
func (c *connections) through(dial DialFunc) DialFunc {
	if dial == nil {
		dial = dialServer
	}
	return func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, addr, dialer, config)
		if err != nil {
			return nil, err
		}
		known := &connection{conn, c}
		c.mu.Lock()
		if c.open == nil {
			c.open = make(map[*connection]struct{})
		}
		c.open[known] = struct{}{}
		c.mu.Unlock()
		c.changed()
		return known, nil
	}
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	c.of.changed()
	return c.Conn.Close()
}

// close closes those that are open. They are rueidis' too, which closes each once more.
func (c *connections) close() {
	c.mu.Lock()
	open := c.open
	c.open = nil
	c.mu.Unlock()
	c.changed()
	for conn := range open {
		_ = conn.Conn.Close()
	}
}
