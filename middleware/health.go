package middleware

import (
	"context"
	"log/slog"
	"sync"

	"github.com/redis-kit/redlock"
)

// health is which nodes fail, as far as the votes tell. A dead node would
// otherwise be logged with every operation.
type health struct {
	mu      sync.Mutex // guards failing
	failing map[int]bool
}

// observe logs the nodes that have begun to fail, or to answer again.
func (h *health) observe(ctx context.Context, logger *slog.Logger, op *redlock.Op) {
	for _, try := range op.Tries {
		for i, vote := range try.Votes {
			bad := failed(vote)
			if !bad && !answered(vote) || !h.turned(i, bad) {
				continue
			}
			node := []slog.Attr{slog.String("node", vote.Node), slog.String("operation", op.Kind.String())}
			if bad {
				logger.LogAttrs(ctx, slog.LevelWarn, "node failing", append(node, errorAttr(vote.Err))...)
			} else {
				logger.LogAttrs(ctx, slog.LevelInfo, "node answers again", node...)
			}
		}
	}
}

// turned notes whether a node fails, and tells whether that is news.
func (h *health) turned(node int, failing bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing[node] == failing {
		return false
	}
	if h.failing == nil {
		h.failing = make(map[int]bool)
	}
	h.failing[node] = failing
	return true
}

// failed tells whether a vote is missing because of its node: a refusal is an
// answer, and what was not waited for tells nothing.
func failed(v redlock.NodeError) bool { return v.Err != nil && !answered(v) && !unknown(v) }

// The reasons are told by their text, since redlock does not export them; a
// test compares them with what it says.

func answered(v redlock.NodeError) bool {
	if v.Err == nil {
		return true
	}
	switch v.Err.Error() {
	case "held by another owner", "the key was gone; it is set again, and counts from the next extension on":
		return true
	}
	return false
}

func unknown(v redlock.NodeError) bool {
	switch v.Err.Error() {
	case "not waited for", "not held here", "not sent: the lock has ended", "the node is closed":
		return true
	}
	return false
}
