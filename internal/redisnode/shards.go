package redisnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/node"
)

const (
	// shardIdle is how long a connection stays open after its last channel.
	shardIdle = 30 * time.Second
	// maxRedirections is how many servers are asked for one channel.
	maxRedirections = 3
)

// subscribeTime is how long a server may take to answer SSUBSCRIBE or SUNSUBSCRIBE. The connection
// of a server that takes longer is closed.
var subscribeTime = 5 * time.Second

// shards are the subscriptions to channels of a Cluster: each server with such channels has one
// connection for all of them.
//
// A server delivers a message of SPUBLISH to its own subscribers, and tells the publisher how
// many they are. So a subscription is on the master that has the channel's slot. It ends, and
// its owner makes another one, when that server says so (after a migration or a failover, but
// not every version says it), when the Cluster tells that the slot is another server's, and
// when the connection breaks.
type shards struct {
	topology *topology
	running  sync.WaitGroup // a goroutine per connection

	mu     sync.Mutex        // guards what follows, and the channels of each shard; a leaf
	open   map[string]*shard // by the server's address
	closed bool
}

// shard is the connection to one server.
type shard struct {
	addr    string
	dialled chan struct{}           // closed when conn is set
	conn    rueidis.DedicatedClient // not changed after
	ctx     context.Context         // ends with the connection
	stop    context.CancelFunc

	channels map[string]*subscription
	leaving  map[string]chan struct{} // by channel: closed when SUNSUBSCRIBE has been answered
	idle     *time.Timer              // runs while there are no channels
}

// subscription is one call of Listen.
type subscription struct {
	channel string
	ready   func()
	heard   func(node.Push)
	end     context.CancelCauseFunc // is told why the subscription has ended; the first reason counts
}

// listen is Listen for a channel of a Cluster.
func (s *shards) listen(ctx context.Context, client rueidis.Client, sub *subscription) error {
	t := s.topology
	t.listeners.Add(1)
	defer t.listeners.Add(-1)
	addr := t.address(slot(sub.channel))
	if addr == "" {
		t.ask(ctx, client)
		if addr = t.address(slot(sub.channel)); addr == "" {
			return node.NotConnected(errNoMaster)
		}
	}
	for range maxRedirections {
		err := s.listenAt(ctx, client, addr, sub)
		to, moved := movedTo(err, addr)
		if !moved {
			if ctx.Err() == nil {
				t.ask(ctx, client) // so that the next call finds the server that has the slot now
			}
			return err
		}
		addr = to
		t.refresh(client, true)
	}
	return node.ErrMoved
}

var errNoMaster = errors.New("no server is known to have the slot")

// movedTo returns the server that an answer of the server at addr names instead.
func movedTo(err error, addr string) (to string, moved bool) {
	var answer *rueidis.RedisError
	if !errors.As(err, &answer) {
		return "", false
	}
	to, moved = answer.IsMoved()
	if strings.HasPrefix(to, ":") { // the server does not know its own host
		host, _, _ := net.SplitHostPort(addr)
		to = net.JoinHostPort(host, to[1:])
	}
	return to, moved
}

// listenAt keeps a subscription on one server until ctx ends, or the subscription does there.
func (s *shards) listenAt(ctx context.Context, client rueidis.Client, addr string, sub *subscription) error {
	server, known := client.Nodes()[addr]
	if !known {
		return node.NotConnected(fmt.Errorf("the client does not know the server %s yet", addr))
	}
	ctx, sub.end = context.WithCancelCause(ctx)
	defer sub.end(nil)
	c, err := s.add(ctx, server, addr, sub)
	if err != nil {
		return err
	}
	defer s.remove(c, sub)
	select {
	case <-c.dialled:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err = c.do(ctx, c.conn.B().Ssubscribe().Channel(sub.channel).Build())
	switch text, _ := answered(err); {
	case ctx.Err() != nil: // the server may have run the command, or may run it later
	case errors.Is(err, errNoAnswer):
		s.end(c, node.NotConnected(err))
		return fmt.Errorf("server %s: SSUBSCRIBE: %w", addr, err)
	case text != "":
		return subscribeError(addr, err)
	case err != nil:
		s.end(c, node.NotConnected(wireError(err)))
	default:
		<-ctx.Done()
	}
	reason := context.Cause(ctx)
	if reason != errUnsubscribed { // otherwise the server may keep the subscription
		s.leave(c, sub)
	}
	return reason
}

var (
	errShardsClosed = errors.New("the node is closed")
	errNoAnswer     = fmt.Errorf("no reply within %v", subscribeTime)
	errUnsubscribed = fmt.Errorf("%w: the server ended the subscription", node.ErrMoved)
	errSlotMoved    = fmt.Errorf("%w: the slot has moved", node.ErrMoved)
)

// subscribeError returns the error of the server at addr that did not take a SSUBSCRIBE.
func subscribeError(addr string, err error) error {
	text, code := answered(err)
	switch said := fmt.Errorf("server %s: SSUBSCRIBE: %w", addr, discreet(err)); {
	case isUnknownCommand(text):
		return node.NoPush(fmt.Errorf("%w (queues on a Cluster need it: Redis 7.0 or later, or Valkey; without it waits poll)", said))
	case code == "NOPERM":
		return node.NoPush(fmt.Errorf("%w (queues on a Cluster need SSUBSCRIBE, SUNSUBSCRIBE and SPUBLISH, with their channels: see SECURITY.md; without them waits poll)", said))
	default:
		return node.NotRun(said)
	}
}

// do runs a command on the connection, until ctx ends: over RESP2, rueidis repeats a subscription on
// a connection that is broken, without end.
func (c *shard) do(ctx context.Context, command rueidis.Completed) error {
	ctx, cancel := context.WithCancelCause(ctx) // no deadline: see Node.ctx
	defer cancel(nil)
	timer := time.AfterFunc(subscribeTime, func() { cancel(errNoAnswer) })
	defer timer.Stop()
	err := c.conn.Do(ctx, command).Error()
	if err != nil && context.Cause(ctx) == errNoAnswer {
		return errNoAnswer
	}
	return err
}

// add adds a subscription to the connection to a server, which it opens if there is none. If the
// channel's last subscription has not left the server, add waits for that: the next SSUBSCRIBE
// must come after its SUNSUBSCRIBE, whose answer would end the next subscription.
func (s *shards) add(ctx context.Context, server rueidis.Client, addr string, sub *subscription) (*shard, error) {
	for {
		c, leaving := s.tryAdd(server, addr, sub)
		switch {
		case leaving != nil:
		case c == nil:
			return nil, node.NotConnected(errShardsClosed)
		default:
			return c, nil
		}
		select {
		case <-leaving:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// tryAdd is add, but returns what to wait for. It returns nothing after close.
func (s *shards) tryAdd(server rueidis.Client, addr string, sub *subscription) (c *shard, leaving <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil
	}
	c = s.open[addr]
	if c == nil {
		c = &shard{
			addr: addr, dialled: make(chan struct{}),
			channels: make(map[string]*subscription), leaving: make(map[string]chan struct{}),
		}
		c.ctx, c.stop = context.WithCancel(context.Background())
		s.open[addr] = c
		s.running.Go(func() { s.serve(c, server) })
	}
	if leaving := c.leaving[sub.channel]; leaving != nil {
		return nil, leaving
	}
	if c.idle != nil {
		c.idle.Stop()
		c.idle = nil
	}
	c.channels[sub.channel] = sub
	return c, nil
}

// leave removes a subscription, and has the server end it. It does not wait for that: the server
// may be silent, and the slot may be another's by now.
func (s *shards) leave(c *shard, sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(c, sub) // before the command is sent, so that its answer ends nothing
	if s.open[c.addr] != c {
		return // with its connection
	}
	left := make(chan struct{})
	c.leaving[sub.channel] = left
	s.running.Go(func() { // s is not closed, as c is open
		if c.do(c.ctx, c.conn.B().Sunsubscribe().Channel(sub.channel).Build()) == errNoAnswer {
			s.end(c, node.NotConnected(errNoAnswer))
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(c.leaving, sub.channel)
		close(left)
	})
}

// remove removes a subscription. The connection is closed shardIdle after its last one. To
// remove it twice does nothing.
func (s *shards) remove(c *shard, sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(c, sub)
}

// removeLocked is remove. s.mu is held.
func (s *shards) removeLocked(c *shard, sub *subscription) {
	if c.channels[sub.channel] != sub {
		return
	}
	delete(c.channels, sub.channel)
	if len(c.channels) == 0 && s.open[c.addr] == c {
		c.idle = time.AfterFunc(shardIdle, func() { s.endIfIdle(c) })
	}
}

func (s *shards) endIfIdle(c *shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(c.channels) == 0 {
		s.endLocked(c, errShardsClosed)
	}
}

// serve opens a connection, passes on what it hears, and closes it in the end.
func (s *shards) serve(c *shard, server rueidis.Client) {
	conn, free := server.Dedicate()
	defer free()
	defer conn.Close() // it is not reused: it has subscribed
	broken := conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnSubscription: func(event rueidis.PubSubSubscription) {
			sub := s.subscription(c, event.Channel)
			switch {
			case sub == nil:
			case event.Kind == "ssubscribe":
				sub.ready()
			case event.Kind == "sunsubscribe":
				sub.end(errUnsubscribed)
			}
		},
		OnMessage: func(m rueidis.PubSubMessage) {
			if sub := s.subscription(c, m.Channel); sub != nil {
				if p, ok := parsePush(m.Message); ok {
					sub.heard(p)
				}
			}
		},
	})
	c.conn = conn
	close(c.dialled)
	select {
	case err := <-broken:
		s.end(c, node.NotConnected(wireError(brokenBy(err))))
	case <-c.ctx.Done():
	}
}

// subscription returns the subscription to a channel on a connection, if there is one.
func (s *shards) subscription(c *shard, channel string) *subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.channels[channel]
}

// end ends a connection and its subscriptions.
func (s *shards) end(c *shard, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked(c, reason)
}

// endLocked is end. s.mu is held.
func (s *shards) endLocked(c *shard, reason error) {
	if s.open[c.addr] != c { // it has ended before
		return
	}
	delete(s.open, c.addr)
	c.stop()
	if c.idle != nil {
		c.idle.Stop()
	}
	for _, sub := range c.channels {
		sub.end(reason)
	}
}

// follow ends the subscriptions whose slots have moved to other servers.
func (s *shards) follow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, c := range s.open {
		for channel, sub := range c.channels {
			if now := s.topology.address(slot(channel)); now != "" && now != addr {
				sub.end(errSlotMoved)
			}
		}
	}
}

// close closes the connections.
func (s *shards) close() {
	s.mu.Lock()
	s.closed = true
	for _, c := range s.open {
		s.endLocked(c, errShardsClosed)
	}
	s.mu.Unlock()
	s.running.Wait()
}
