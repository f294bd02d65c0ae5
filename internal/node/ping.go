package node

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis-kit/redlock/internal/quorum"
)

// Ping asks every server of the node whether scripts may write to it, and waits until all have
// answered. A server that has not answered within timeout has failed. If ctx ends or stop is
// closed earlier, Ping returns ErrUnasked.
func (n *Node) Ping(ctx context.Context, stop <-chan struct{}, timeout time.Duration) error {
	return n.askServers(ctx, Ping, stop, timeout)
}

// Trust ends the quarantine of the node's server. It waits as Ping does.
func (n *Node) Trust(ctx context.Context, stop <-chan struct{}, timeout time.Duration) error {
	return n.askServers(ctx, Trust, stop, timeout)
}

func (n *Node) askServers(ctx context.Context, kind Kind, stop <-chan struct{}, timeout time.Duration) error {
	keys := n.backend.Samples()
	answers := make(chan error, len(keys)) // has room for all: a late one blocks no worker
	pings := make([]*ping, len(keys))
	for i, key := range keys {
		p := &ping{claim: NewClaim([]string{key}, rand.Text(), n.index+1), answers: answers}
		defer p.claim.End() // a ping that is still queued is not sent
		pings[i] = p
		n.ask(Command{Kind: kind, Claim: p.claim, handler: p})
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var failed error
	answered := 0
	for range keys {
		select {
		case err := <-answers:
			if err == nil {
				answered++
			} else {
				failed = err
			}
			continue
		case <-timer.C:
			failed = n.silent(pings, timeout)
		case <-ctx.Done():
			failed = ErrUnasked
		case <-stop:
			failed = ErrUnasked
		}
		break
	}
	if failed != nil && len(keys) > 1 {
		return fmt.Errorf("%d of %d servers answered: %w", answered, len(keys), failed)
	}
	return failed
}

// ping is one question to one server.
type ping struct {
	claim   *Claim // owns no keys: it names the server, and its end drops the question
	answers chan<- error
	sent    atomic.Bool
	done    atomic.Bool
}

func (p *ping) Sent(int, quorum.Progress) { p.sent.Store(true) }

func (p *ping) Cast(_ int, r quorum.Reply) {
	p.done.Store(true)
	p.answers <- r.Err
}

// silent returns why the first unanswered ping has no answer.
func (n *Node) silent(pings []*ping, timeout time.Duration) error {
	for _, p := range pings {
		if p.done.Load() {
			continue
		}
		if !p.sent.Load() {
			if _, reason := n.Unsent(p.claim); reason != nil {
				return reason
			}
		}
		break
	}
	return fmt.Errorf("%w within %v", quorum.ErrNoReply, timeout)
}
