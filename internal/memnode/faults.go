package memnode

import (
	"errors"
	"time"

	"github.com/redis-kit/redlock/internal/node"
)

// Op names the first command of a call to a Backend.
type Op string

const (
	Acquire Op = "acquire"
	Extend  Op = "extend"
	Release Op = "release"
	Join    Op = "join"
	Confirm Op = "confirm"
	Trust   Op = "trust"
	Ping    Op = "ping"
	Look    Op = "look"
	Read    Op = "read"
)

var ops = [...]Op{
	node.Acquire: Acquire, node.Extend: Extend, node.Release: Release, node.Leave: Release,
	node.Join: Join, node.Confirm: Confirm, node.Trust: Trust, node.Ping: Ping, node.Look: Look, node.Read: Read,
}

// Fault is what happens to one call. The zero Fault is none.
type Fault struct {
	Request     time.Duration // until the node runs the call
	Reply       time.Duration // from then until the caller has the answer
	LoseRequest bool          // the call never runs, and fails after Request
	LoseReply   bool          // the call runs, and fails after Request and Reply
	Twice       bool          // the node runs the call a second time, Reply later: a duplicate
	NotRun      bool          // the call fails at once, with node.ErrNotRun
	Refuse      bool          // the call fails at once: there is no connection
}

// Errors of calls that fail.
var (
	ErrLost = errors.New("connection lost")
	ErrDown = errors.New("connection refused")
)

// Faults sets the function that returns the fault of each call from now on. A call is one
// pipeline: op is its first command, and commands the number of them. The function may be
// called concurrently. nil means no faults.
func (b *Backend) Faults(fault func(op Op, commands int) Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = fault
}

// Pushes sets the function that returns the fault of each push from now on: how late it is, and
// whether it gets lost. The function is called with the Backend locked.
func (b *Backend) Pushes(push func() (delay time.Duration, lost bool)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.push = push
}

// Pause stops the node: calls wait until Resume.
func (b *Backend) Pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.resumed == nil {
		b.resumed = make(chan struct{})
	}
}

// Resume lets a paused node go on.
func (b *Backend) Resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resume()
}

func (b *Backend) resume() {
	if b.resumed != nil {
		close(b.resumed)
		b.resumed = nil
	}
}

// Down has the node refuse calls until Up. It keeps its keys. Calls that are under way break
// off; on a paused node they never run.
func (b *Backend) Down() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = true
	b.outages++
	b.resume()
}

// Up ends what Down began.
func (b *Backend) Up() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = false
}

// Wipe empties the node, as a restart without data does.
func (b *Backend) Wipe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys, b.queues, b.counters, b.marked = nil, nil, nil, false
}
