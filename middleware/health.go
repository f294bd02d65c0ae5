package middleware

import (
	"context"
	"log/slog"
	"sync"

	"github.com/redis-kit/redlock"
)

// health notes which nodes fail, according to the votes, so that a dead node is logged once
// and not with every operation.
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

// turned notes whether a node fails, and reports whether that has changed.
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

func failed(v redlock.Vote) bool { return v.Kind == redlock.VoteFailed }

func answered(v redlock.Vote) bool {
	return v.Kind == redlock.VoteGranted || v.Kind == redlock.VoteRefused
}
