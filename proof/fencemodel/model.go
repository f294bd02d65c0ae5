package fencemodel

// Counting is how a client chooses its token and counts the nodes for it.
type Counting uint8

const (
	// Strict is the rule of redlock: the token is the largest counter that any answer
	// carried, and only nodes whose last answer is exactly the token count.
	Strict Counting = iota
	// AtLeast takes the largest counter of the first quorum of grants; any answer that
	// is not below it counts.
	AtLeast
	// LargestOfQuorum takes the largest counter of a quorum of grants and confirms nothing.
	LargestOfQuorum
	// FirstGrant takes the counter of the first grant; any answer that is not below it counts.
	FirstGrant
)

// Confirming is what a node does with a confirm.
type Confirming uint8

const (
	// OwnerChecked raises the counter and answers only where the keys are the attempt's.
	OwnerChecked Confirming = iota
	// Unchecked raises the counter and answers wherever it comes.
	Unchecked
	// RefusersAnswer raises the counter only where the keys are the attempt's, but
	// answers with the counter everywhere.
	RefusersAnswer
)

// Loss is whether one node may lose its data once, and when it votes again.
type Loss uint8

const (
	// NoLoss keeps all data.
	NoLoss Loss = iota
	// BackAtOnce lets the node vote again at once.
	BackAtOnce
	// BackAfterLocks keeps the node from voting until every attempt that began before
	// the loss is past its deadline.
	BackAfterLocks
	// BackAfterSkew keeps it away for twice the clock skew longer: every attempt that
	// can still complete then, or begins later, has a floor above all counters that
	// there were at the loss.
	BackAfterSkew
)

// Keys is a set of lock keys, one bit for each.
type Keys uint8

// Model is one configuration: the world, and the rules that clients and nodes follow.
// The zero rules are redlock's, for attempts that wait in no queue.
type Model struct {
	Nodes    int       // at most 4
	Attempts []Keys    // the keys that each attempt locks, at most 3 attempts
	Counters [][]uint8 // the counters, one for each key, that a node may begin with
	Floors   []uint8   // the floors that an attempt may choose when it begins
	Timed    bool      // the clients' validity checks are right; otherwise they are useless

	Counting   Counting
	Confirming Confirming
	Loss       Loss
	Reordered  bool // answers, and confirms of one attempt to one node, may overtake each other
	Refill     bool // holders set their key again where it is gone, as extensions do
	Early      bool // with Refill: attempts do so too, before nodes agree on their token
	SharedID   bool // the first two attempts are one client's, in turn, under one id
	Queue      bool // attempts join the nodes' queues, and releases grant
	Again      bool // with Queue: one node may grant to one attempt a second time, after the key was gone
	Stale      bool // with Queue: a push that comes late counts as if it were new
	Confirmed  bool // with Queue: a confirm that is answered makes a vote, and the quorum of votes may change
	OldFloor   bool // with Queue: a waiter keeps the floor of its first JOIN
}

// The bounds of a state. A state that needs more makes the search panic.
const (
	maxNodes    = 4
	maxAttempts = 3
	maxKeys     = 3
	maxInFlight = 6 // confirms, or answers, between one attempt and one node
)

// node is what one node has stored.
type node struct {
	owner   [maxKeys]uint8 // an id, or 0
	counter [maxKeys]uint8
	away    bool // it has lost its data and does not vote
}

// vote is what a client knows from one node.
type vote uint8

const (
	noVote vote = iota
	below       // it granted; its last answer is below the client's token
	agreed      // its last answer counts for the client's token
)

// link is what is between one attempt and one node: what the node has run, what is on
// its way, and what the client knows. Queues are in order, and zeros at their ends.
type link struct {
	grants   uint8 // how often the node has granted
	vote     vote
	counted  bool // with Queue, timed: the vote is one of the quorum on which the attempt's validity rests
	confirms [maxInFlight]uint8
	answers  [maxInFlight]answer
}

// answer is a counter on its way to a client.
type answer uint8

// What an answer is to, in addition to its counter. None of them: a grant.
const (
	toConfirm answer = 1 << 6
	valueMask        = toConfirm - 1
)

// phase is the progress of an attempt.
type phase uint8

const (
	idle phase = iota
	asking
	completed
)

// attempt is what one client knows, and what the properties need to know of it.
type attempt struct {
	phase     phase
	over      bool  // timed: it has given up, released, or let its deadline pass
	floor     uint8 // as chosen when it began
	token     uint8 // the largest counter so far; the final one once completed
	confirmed uint8 // the token of the last round of confirms, or 0
	bound     uint8 // the largest token of a completion before it began
	before    bool  // it began before the loss; with Queue: one of its votes is, or all
}

// column is the state that concerns one node.
type column struct {
	node  node
	links [maxAttempts]link
}

// state is the whole world at one moment. It is plain memory, to be hashed.
type state struct {
	columns  [maxNodes]column
	attempts [maxAttempts]attempt
	lost     loss
	mark     uint8 // the largest counter at the time of the loss
}

// loss is the progress of the loss of one node's data.
type loss uint8

const (
	notLost loss = iota
	away
	back
)

func (m *Model) quorum() int { return m.Nodes/2 + 1 }

// keys returns the number of keys.
func (m *Model) keys() int { return len(m.Counters[0]) }

// id returns what an attempt writes into keys.
func (m *Model) id(i int) uint8 {
	if m.SharedID && i == 1 {
		i = 0
	}
	return uint8(i + 1)
}

// initial returns the states that a run may begin in: one for each choice of counters, up
// to the order of the nodes.
func (m *Model) initial() []state {
	var states []state
	var choose func(s state, n, from int)
	choose = func(s state, n, from int) {
		if n == m.Nodes {
			states = append(states, s)
			return
		}
		for c := from; c < len(m.Counters); c++ {
			copy(s.columns[n].node.counter[:], m.Counters[c])
			choose(s, n+1, c)
		}
	}
	choose(state{}, 0, 0)
	return states
}

// has reports whether a key is in the set.
func (k Keys) has(key int) bool { return k>>key&1 == 1 }

// owns reports whether all keys of an attempt are its own at a node.
func (m *Model) owns(s *state, i, n int) bool {
	for key := range m.keys() {
		if m.Attempts[i].has(key) && s.columns[n].node.owner[key] != m.id(i) {
			return false
		}
	}
	return true
}

// mayComplete reports whether an attempt may still complete.
func (m *Model) mayComplete(s *state, i int) bool {
	return s.attempts[i].phase != completed && !s.attempts[i].over
}
