package redistest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy in front of one server. Its faults can be switched at any moment,
// from any goroutine, and apply to open connections and to new ones. Faults combine;
// bytes always keep their order.
type Proxy struct {
	t      testing.TB
	target string
	ln     *net.TCPListener
	wg     sync.WaitGroup // every goroutine of the proxy

	mu     sync.Mutex // guards what follows and the state of every link
	faults faults
	links  map[*link]struct{}
	closed bool
}

// NewProxy listens on a free loopback port and forwards connections to target. When the
// test ends it is closed, with its connections and goroutines.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("redistest: proxy for %s: %v", target, err)
	}
	p := &Proxy{t: t, target: target, ln: ln, links: map[*link]struct{}{}}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Addr returns the host:port that the proxy listens on.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// URL returns [Proxy.Addr] as a redis:// URL.
func (p *Proxy) URL() string { return "redis://" + p.Addr() }

// Delay holds each chunk for that long. It adds latency and does not limit the
// throughput. Zero is none.
func (p *Proxy) Delay(onRequests, onReplies time.Duration) {
	p.change(func(f *faults) { f.delay = [2]time.Duration{onRequests, onReplies} })
}

// Dribble passes the replies one byte per d. Zero is off.
func (p *Proxy) Dribble(d time.Duration) {
	p.change(func(f *faults) { f.dribble = d })
}

// BlackHole passes nothing in either direction. Connections stay open, even if
// the server closes them or dies, and new ones are accepted, but do not get to
// the server. When it is switched off, what was held back is passed on, as
// packets are sent again after a partition; what a client left behind by
// closing its connection in that time is dropped.
func (p *Proxy) BlackHole(on bool) {
	p.change(func(f *faults) { f.blackHole = on })
}

// HoldReplies passes the requests but holds the replies back until it is
// switched off.
func (p *Proxy) HoldReplies(on bool) {
	p.change(func(f *faults) { f.hold[replies] = on })
}

// HoldRequests holds the requests back, and the connecting of new connections,
// until it is switched off. Unlike in a black hole, what a client sent before
// it closed its connection still gets to the server then: a ghost command.
func (p *Proxy) HoldRequests(on bool) {
	p.change(func(f *faults) { f.hold[requests] = on })
}

// Refuse resets every connection, and new ones at once. The port stays ours, so
// what fails is the end of dialling or the first read or write, and it fails
// with ECONNRESET or EPIPE, not with ECONNREFUSED.
func (p *Proxy) Refuse(on bool) {
	p.change(func(f *faults) {
		f.refuse = on
		if on {
			p.cut()
		}
	})
}

// Cut resets every connection now.
func (p *Proxy) Cut() {
	p.change(func(*faults) { p.cut() })
}

// CutAfterRequest arms a trap that works once: the next chunk of requests that
// contains match is passed to the server, and when the server replies next, the
// connection is closed in place of passing the reply on. The command has run,
// its reply is lost. The empty match is in any chunk. A chunk is what one read
// of up to 64 KiB returned: one write of the client, or several in a row. Of a
// command that does not fit, the rest may be lost with the connection.
func (p *Proxy) CutAfterRequest(match string) {
	p.change(func(f *faults) { f.match = &match })
}

// CutAfterReplyBytes arms a trap that works once: the connection on which the
// n-th reply byte from now passes is reset after that byte. With n = 0 it is
// the one on which the next reply comes, and none of that reply passes.
func (p *Proxy) CutAfterReplyBytes(n int) {
	p.change(func(f *faults) { f.budget = &n })
}

// Heal ends all faults and disarms the traps.
func (p *Proxy) Heal() {
	p.change(func(f *faults) {
		*f = faults{}
		for l := range p.links {
			l.loseReply = false
		}
	})
}

// Connections counts the clients' connections.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for l := range p.links {
		if l.ctx.Err() == nil {
			n++
		}
	}
	return n
}

type direction int

const (
	requests direction = iota
	replies
)

// faults are the faults of a proxy that are switched on. The zero value is none.
type faults struct {
	refuse    bool
	blackHole bool
	hold      [2]bool
	delay     [2]time.Duration
	dribble   time.Duration
	match     *string // CutAfterRequest, while armed
	budget    *int    // CutAfterReplyBytes, while armed
}

// change applies f under the lock and makes every waiting stream check again.
func (p *Proxy) change(f func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.faults)
	for l := range p.links {
		l.streams[requests].notify()
		l.streams[replies].notify()
	}
}

// cut resets the connections that still have a client. p.mu is held.
func (p *Proxy) cut() {
	for l := range p.links {
		if l.ctx.Err() == nil {
			l.close(true)
		}
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	_ = p.ln.Close()
	for l := range p.links {
		l.close(false)
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.AcceptTCP()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				p.t.Errorf("redistest: proxy for %s: %v", p.target, err)
			}
			return
		}
		p.admit(client)
	}
}

func (p *Proxy) admit(client *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &link{p: p, client: client}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	if p.closed || p.faults.refuse {
		l.close(true)
		return
	}
	p.links[l] = struct{}{}
	for dir := range l.streams {
		l.streams[dir].wake = make(chan struct{}, 1)
	}
	// The first of the requests is to connect.
	l.streams[requests].queue = []chunk{{at: time.Now()}}
	p.wg.Go(func() { l.read(client, requests) })
	p.wg.Go(l.sendRequests)
	p.wg.Go(l.sendReplies)
}

// link is a client's connection and its counterpart to the server. In each
// direction one goroutine reads into a queue and another sends from it, so a
// chunk that waits does not keep the next from being read and dated.
type link struct {
	p      *Proxy
	client *net.TCPConn
	server *net.TCPConn // nil until connected; set by sendRequests

	// ctx ends when the client is let go. The link may outlast it, to let the
	// server read all it was sent.
	ctx    context.Context
	cancel context.CancelFunc

	streams   [2]stream
	loseReply bool // CutAfterRequest has seen its request
}

// stream is one direction of a link: the bytes that were read and have not been sent.
type stream struct {
	queue []chunk
	last  time.Time     // when Dribble let the last byte through
	wake  chan struct{} // capacity 1: the queue or the faults have changed
}

// chunk is what one read returned. Without data and end it stands for the
// opening of the connection.
type chunk struct {
	at   time.Time
	data []byte
	end  error // why there is no more; io.EOF if properly closed
	cut  bool  // reset the connection after the data
}

func (s *stream) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// read queues the bytes from src until src ends.
func (l *link) read(src *net.TCPConn, dir direction) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			l.push(dir, chunk{data: bytes.Clone(buf[:n])})
		}
		if err != nil {
			l.push(dir, chunk{end: err})
			return
		}
	}
}

func (l *link) push(dir direction, c chunk) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	switch {
	case l.ctx.Err() != nil:
		// The client is gone. When the server closes its side, the link ends.
		if dir == replies && c.end != nil {
			l.close(false)
		}
		return
	case dir == replies && l.loseReply && c.data != nil:
		l.letGo()
		return
	case dir == requests && c.end != nil && c.end != io.EOF:
		l.close(true)
		return
	}
	c.at = time.Now()
	s := &l.streams[dir]
	s.queue = append(s.queue, c)
	s.notify()
}

// sendRequests connects to the server and passes the requests on. Errors of a
// write are left to the reader of that connection, which gets them too, in
// their place after the last reply.
func (l *link) sendRequests() {
	defer func() {
		// Unlike a close, which resets if replies are unread, this lets the
		// server run all it was sent. It closes in turn, and ends the link.
		if l.server != nil {
			_ = l.server.CloseWrite()
		}
	}()
	for {
		c, ok := l.next(requests)
		switch {
		case !ok:
			return
		case c.end != nil:
			l.p.mu.Lock()
			l.letGo()
			if l.server == nil {
				l.close(false)
			}
			l.p.mu.Unlock()
			return
		case c.data == nil:
			l.connect()
		case l.server != nil:
			_, _ = l.server.Write(c.data)
		}
	}
}

func (l *link) sendReplies() {
	for {
		c, ok := l.next(replies)
		if !ok {
			return
		}
		if len(c.data) > 0 {
			_, _ = l.client.Write(c.data)
		}
		if c.end != nil || c.cut {
			l.p.mu.Lock()
			l.close(c.end != io.EOF)
			l.p.mu.Unlock()
			return
		}
	}
}

func (l *link) connect() {
	conn, err := new(net.Dialer).DialContext(l.ctx, "tcp", l.p.target)
	if err != nil {
		l.push(replies, chunk{end: err})
		return
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.ctx.Err() != nil {
		_ = conn.Close()
		return
	}
	l.server = conn.(*net.TCPConn)
	l.p.wg.Go(func() { l.read(l.server, replies) })
}

// next waits for a chunk that may pass now. It returns false when the client
// has been let go.
func (l *link) next(dir direction) (c chunk, ok bool) {
	for l.ctx.Err() == nil {
		c, wait, ok := l.take(dir)
		if ok {
			return c, true
		}
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-l.streams[dir].wake:
		case <-due:
		case <-l.ctx.Done():
		}
	}
	return chunk{}, false
}

// take removes what the faults let pass now. If nothing may pass, wait is the time until
// something may, or zero if that depends on a change of the faults.
func (l *link) take(dir direction) (c chunk, wait time.Duration, ok bool) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	f, s := &l.p.faults, &l.streams[dir]
	if len(s.queue) == 0 {
		return chunk{}, 0, false
	}
	if f.blackHole {
		if dir == requests && s.queue[len(s.queue)-1].end != nil {
			l.close(false)
		}
		return chunk{}, 0, false
	}
	if f.hold[dir] {
		return chunk{}, 0, false
	}
	now := time.Now()
	head := &s.queue[0]
	due := head.at.Add(f.delay[dir])
	dribble := dir == replies && f.dribble > 0 && head.data != nil
	if dribble && due.Before(s.last.Add(f.dribble)) {
		due = s.last.Add(f.dribble)
	}
	if wait = due.Sub(now); wait > 0 {
		return chunk{}, wait, false
	}

	c = *head
	if dribble && len(c.data) > 1 {
		c.data, head.data = c.data[:1], c.data[1:]
	} else {
		s.queue = s.queue[1:]
	}
	if dribble {
		s.last = now
	}
	if dir == requests && f.match != nil && c.data != nil && bytes.Contains(c.data, []byte(*f.match)) {
		f.match, l.loseReply = nil, true
	}
	if dir == replies && f.budget != nil && c.data != nil {
		if len(c.data) >= *f.budget {
			c.data, c.cut, f.budget = c.data[:*f.budget], true, nil
		} else {
			*f.budget -= len(c.data)
		}
	}
	return c, 0, true
}

// letGo closes the client's connection only. p.mu is held.
func (l *link) letGo() {
	l.cancel()
	_ = l.client.Close()
}

// close ends the link on both sides. p.mu is held.
func (l *link) close(reset bool) {
	if reset {
		_ = l.client.SetLinger(0)
		if l.server != nil {
			_ = l.server.SetLinger(0)
		}
	}
	l.letGo()
	if l.server != nil {
		_ = l.server.Close()
	}
	delete(l.p.links, l)
}
