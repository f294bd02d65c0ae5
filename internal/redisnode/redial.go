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

// redialPause is the shortest time from one redial to the next. A server that stays a replica
// is dialled at most once in it, and a server that has moved is found within it.
const redialPause = time.Second

// redial dials the server again, after it has answered that it takes no writes. The dial
// resolves the server's name again. The commands under way fail, and their outcome is
// unknown, as when a connection breaks.
//
// Connections that Dial has made are closed: for a Sentinel group, those to the Sentinels too,
// whereupon rueidis asks them for the master at once. The connections of a caller's client are
// not known, so the server is asked to close the one that carries the commands, after it has
// answered all earlier commands. (ClientOption.ConnLifetime would not do: rueidis then resends
// commands that a server did not answer within a second, against invariant 4.) rueidis asks the
// Sentinels every few seconds, and the servers of a Cluster whenever one answers MOVED.
func (s *Redis) redial(ctx context.Context, client rueidis.Client) {
	s.demoted.Store(false)
	if !s.redialIsDue() {
		return
	}
	if s.connections != nil {
		s.connections.close()
		return
	}
	if !s.sentinels {
		client.Do(ctx, client.B().Arbitrary("QUIT").Build())
	}
}

// redialIsDue reports whether the server is to be dialled now, and ends Listen if so: a replica
// pushes no grants.
func (s *Redis) redialIsDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.topology != nil || !s.redialled.IsZero() && now.Sub(s.redialled) < redialPause {
		return false
	}
	s.redialled = now
	close(s.moved)
	s.moved = make(chan struct{})
	return true
}

// errMoved ends Listen.
var errMoved = errors.New("the server is a replica")

// isReplica returns the error of a server that has answered that it takes no writes.
func (s *Redis) isReplica(err error) error {
	switch {
	case s.topology != nil:
		return err
	case s.sentinels:
		return fmt.Errorf("%w (the server is a replica, or still loads its data: asking the Sentinels again for the master)", err)
	case s.connections == nil:
		return fmt.Errorf("%w (the server is a replica, or still loads its data: dialling its address again, if Tune has set up the client)", err)
	}
	return fmt.Errorf("%w (the server is a replica, or still loads its data: dialling its address again)", err)
}

// connections are the open connections that Dial has made.
type connections struct {
	changed func() // called when one is made, before it is used, and when one is closed

	mu   sync.Mutex // guards what follows
	open map[*connection]struct{}
}

// connection removes itself from its connections when it is closed.
type connection struct {
	net.Conn
	of *connections
}

// through returns a dial whose connections c tracks.
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

// close closes the open connections. rueidis closes each of them again.
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
