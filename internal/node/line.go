package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// A server that cannot be connected to is left alone for firstRespite, then for
// twice as long each time, up to lastRespite. rueidis would dial for each call,
// and allocate a connection's buffers for it, which costs more than an
// acquisition on all the healthy nodes does.
const (
	firstRespite = 50 * time.Millisecond
	lastRespite  = time.Second
)

// line is the connection to one server, as far as calls have shown. The zero
// line is in order.
type line struct {
	mu       sync.Mutex // guards what follows
	failures int        // calls that broke off since the last that was answered
	err      error      // of the last of them
	respite  time.Duration
	until    time.Time // the end of the respite, if there is one
}

// try is one call over a line, or, in its zero value, over several.
type try struct {
	line *line
	seen int // failures before it began
}

// begin begins a call, unless there is a respite. Then the error is ErrNotRun.
func (l *line) begin() (try, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failures > 0 && time.Now().Before(l.until) {
		return try{}, notRun{fmt.Errorf("not connected: %w", l.err)}
	}
	return try{l, l.failures}, nil
}

// heard ends a call. Calls that were under way when the connection broke mean
// nothing for the next one, but the call after that has dialled anew: if it
// breaks off too, the server is away. err is that of the connection: what a
// server answers is none, unless it says so instead of shaking hands.
func (t try) heard(err error) {
	answered := err == nil
	if t.line == nil || answered && t.seen == 0 || errors.Is(err, context.Canceled) {
		return
	}
	l := t.line
	l.mu.Lock()
	defer l.mu.Unlock()
	if answered {
		l.failures, l.err, l.respite, l.until = 0, nil, 0, time.Time{}
		return
	}
	l.failures, l.err = l.failures+1, discreet(err)
	now := time.Now()
	if now.Before(l.until) || t.seen == 0 && !dialFailed(err) {
		return
	}
	l.respite = min(max(firstRespite, 2*l.respite), lastRespite)
	l.until = now.Add(l.respite)
}

// dialFailed tells the errors of a dial. The ctx of a call has no deadline, so
// a deadline that is exceeded is that of rueidis' own dial or handshake.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &op) && op.Op == "dial"
}
