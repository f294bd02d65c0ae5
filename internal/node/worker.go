package node

import (
	"runtime"
	"sync"
	"time"
)

// laneID names a lane of a server.
type laneID int

const (
	claimLane     laneID = iota // acquisitions and releases
	extensionLane               // extensions
)

// secondPipelineAt is the backlog at which a second pipeline goes out to a near server, so that
// the server has something to do while the replies to the first one are read.
const secondPipelineAt = 48

// The bounds of each lane.
var (
	// From a round trip of farRTT on, pipelines overlap. Below it, waiting makes pipelines
	// longer and costs less than it saves. No caller waits for an extension, so extensions
	// overlap later.
	farRTT = [...]time.Duration{claimLane: 700 * time.Microsecond, extensionLane: 5 * time.Millisecond}
	// overlapAfter is how long a pipeline to a near server waits for the reply to the one
	// before: the server may hang.
	overlapAfter = [...]time.Duration{claimLane: 5 * time.Millisecond, extensionLane: 25 * time.Millisecond}
	// maxPipelines is how many pipelines may be under way to a server that is far, or hangs;
	// rueidis' ring of 1024 has room for all.
	maxPipelines = [...]int{claimLane: 64, extensionLane: 3}
	// maxBatch is how many commands a pipeline carries. At 50 ms that makes 300 000 claims and
	// 30 000 extensions a second. rueidis sends pipelines of 2000 and more on another
	// connection, where they overtake.
	maxBatch = [...]int{claimLane: 256, extensionLane: 512}
)

// maxIdle bounds idle workers: deployments with more servers keep none.
const maxIdle = 64

// yieldAt is the backlog at which a worker yields, to let more callers join the pipeline.
const yieldAt = 3

// lane is the state of one lane's workers. A worker takes what waits in its lane, sends it as
// one pipeline, waits for the replies and casts the votes, until nothing waits. A near server
// has one worker per lane, as long as it answers: what arrives while a pipeline is under way
// leaves in the next one. A far server has several pipelines under way.
type lane struct {
	busy   int       // workers that take or send
	latest time.Time // when the latest pipeline was sent
	// One worker stays when there is nothing to do: it costs less to wake it than to start
	// another.
	idle  bool
	ready sync.Cond // signalled when the idle worker is to go on
}

// wakeWorker has a worker of the lane go on or start, if there is anything for one to do.
func (s *server) wakeWorker(id laneID) {
	if s.backlog(id) == 0 || s.down != nil || s.node.closed {
		return
	}
	l := &s.lanes[id]
	switch trip := s.trip.least(); {
	case l.busy == 0:
	case l.busy == maxPipelines[id]:
		return
	case trip == 0 || trip >= farRTT[id]:
	case l.busy == 1 && s.backlog(id) >= secondPipelineAt:
	case time.Since(l.latest) < overlapAfter[id]:
		return
	}
	if !l.wakeIdle() {
		l.busy++
		s.node.running.Go(func() { s.serve(id) })
	}
}

// wakeIdle has the idle worker go on, and reports whether there was one. It counts as busy from
// then on: before it runs, another worker may become idle.
func (l *lane) wakeIdle() bool {
	if !l.idle {
		return false
	}
	l.idle = false
	l.busy++
	l.ready.Signal()
	return true
}

// pipeline holds the commands that a worker sends together. A worker reuses its pipeline.
type pipeline struct {
	lane    laneID
	flight  flight
	batch   []Command
	dropped []Command // was taken from the queue, and is not sent
	start   time.Time
	seen    int // server.failures at start
}

// serve sends the commands that wait in a lane until none is left. It may hang with its
// server; no caller waits for it. The Node's mutex is not held.
func (s *server) serve(id laneID) {
	p := &pipeline{lane: id, flight: flight{flights: &s.flights}}
	for yielded := false; ; {
		switch s.fill(p, yielded) {
		case stepYield: // callers that are ready to run are about to add to the pipeline
			runtime.Gosched()
			yielded = true
			continue
		case stepEnd:
			return
		}
		yielded = false
		s.node.cast(p.dropped)
		if len(p.batch) > 0 {
			s.transmit(p)
		}
	}
}

// transmit sends a pipeline, settles its commands and casts their votes. The Node's mutex is
// not held.
func (s *server) transmit(p *pipeline) {
	n := s.node
	p.flight.prepare(p.start)
	for i := range p.batch {
		if v := p.batch[i].handler; v != nil {
			v.Sent(n.index, &p.flight)
		}
	}
	p.flight.leave()
	err := n.backend.Do(n.ctx, p.batch)
	end := time.Now()
	p.flight.land(end, err == nil)
	for i := range p.batch {
		if c := &p.batch[i]; c.refusedByOwn() {
			c.handler.Sent(n.index, refusedAt(end)) // before land, after which another worker may send it
		}
	}
	s.land(p, end, err)
	n.cast(p.batch)
	n.cast(p.dropped)
}

// step is the next action of a worker.
type step int

const (
	stepSend  step = iota // send the pipeline, and cast what was dropped
	stepYield             // yield to other goroutines, then fill the pipeline
	stepEnd
)

// fill takes the next pipeline from its lane. While there is nothing to take it waits. It locks
// the Node's mutex.
func (s *server) fill(p *pipeline, yielded bool) step {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	for {
		if !yielded && s.inFlight+s.backlog(p.lane) >= yieldAt {
			return stepYield
		}
		s.take(p)
		if len(p.batch) > 0 {
			s.wakeWorker(p.lane) // another, where the server is far
			return stepSend
		}
		if len(p.dropped) > 0 {
			return stepSend
		}
		if !s.waitForWork(p.lane) {
			return stepEnd
		}
		yielded = false
	}
}

// take takes the commands of a pipeline from its lane. A command that need not be sent is
// dropped.
func (s *server) take(p *pipeline) {
	clear(p.batch)
	clear(p.dropped)
	p.batch, p.dropped = p.batch[:0], p.dropped[:0]
	p.start, p.seen = time.Now(), s.failures
	if s.down != nil || s.node.closed {
		return
	}
	for len(p.batch) < maxBatch[p.lane] && s.backlog(p.lane) > 0 {
		var c Command
		if p.lane == extensionLane {
			c = s.extensions.pop()
		} else {
			c = s.queue.pop()
		}
		if s.begin(&c, p.start) {
			p.batch = append(p.batch, c)
		} else {
			p.dropped = append(p.dropped, c)
		}
	}
	if len(p.batch) > 0 {
		if s.inFlight == 0 {
			s.heard = p.start
		}
		s.inFlight += len(p.batch)
		s.lanes[p.lane].latest = p.start
	}
}

// waitForWork has a worker wait, and reports whether it is to go on. There is room for one idle
// worker per lane, and for none where a deployment has so many servers that their workers would
// cost more than they spare.
//
// No command is missed: the mutex is held from the worker's last look at the queue until Wait,
// which releases it only once the worker can be signalled.
func (s *server) waitForWork(id laneID) bool {
	l := &s.lanes[id]
	l.busy--
	if l.idle || s.node.closed || len(s.node.servers) > maxIdle {
		return false
	}
	// wakeIdle counts the worker as busy and clears idle. When this one goes on, another may be
	// idle, so idle is no condition to look at after Wait, which returns only when signalled.
	l.idle = true
	l.ready.Wait()
	return !s.node.closed
}

// land settles the commands of a pipeline that ended with err, the error of the connection. It
// leaves the commands that are dropped because of it in p.dropped. It locks the Node's mutex.
func (s *server) land(p *pipeline, end time.Time, err error) {
	n := s.node
	n.mu.Lock()
	defer n.mu.Unlock()
	s.inFlight -= len(p.batch)
	if err == nil {
		s.trip.add(end.Sub(p.start))
		n.trip.Store(int64(s.trip.least()))
		s.heard = end
	}
	for i := range p.batch {
		c := &p.batch[i]
		s.settle(c, end)
		if c.refusedByOwn() {
			s.postpone(c)
		}
	}
	n.resume()
	clear(p.dropped)
	p.dropped = s.connection(p.seen, err, p.batch[0].Claim.Keys, p.dropped[:0])
}
