package node

import "time"

// Extension is one request to extend a claim by TTL, before Due. Extensions are sent in
// the order in which they are due. An overdue one may be dropped.
type Extension struct {
	Pending *PendingExtension
	Claim   *Claim
	TTL     time.Duration
	Due     time.Time
	Handler ReplyHandler
}

// PendingExtension is the entry of one claim in one node's queue of extensions. The zero value
// is ready for use, with one Node and one Claim.
type PendingExtension struct {
	queued Extension
	server *server // whose queue it is in, or was in last
	index  int     // in the queue, from 1; 0 if it is not queued
}

// Extend asks the node to extend claims, in as few pipelines as they fit in. A request
// replaces an unsent one with the same PendingExtension, whose handler then gets no
// reply. So the queue of a hung server has at most one extension of each claim. While a
// server is down extensions wait: it may be back in time.
func (n *Node) Extend(batch ...Extension) {
	dropped, err := n.queueExtensions(batch)
	if err != nil {
		for _, e := range batch {
			e.Handler.Cast(n.index, failed(err))
		}
		return
	}
	n.cast(dropped)
}

// queueExtensions queues extensions, and returns the commands that were dropped from the
// queues, or why none can be sent.
func (n *Node) queueExtensions(batch []Extension) (dropped []Command, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errClosed
	}
	for _, e := range batch {
		s, pending := n.server(n.backend.Server(e.Claim.Keys)), e.Pending
		if pending.index > 0 && pending.server != s { // its keys have moved since it was queued
			pending.server.extensions.remove(pending)
		}
		pending.queued, pending.server = e, s
		dropped = append(dropped, s.extensions.push(pending)...)
		n.started = append(n.started, s)
	}
	for _, s := range n.started {
		s.wakeWorker(extensionLane)
	}
	clear(n.started)
	n.started = n.started[:0]
	return dropped, nil
}
