package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis-kit/redlock/internal/redisnode"
)

// feature is what a server does for one part of the library.
type feature struct {
	Feature redisnode.Feature `json:"feature"`
	Works   bool              `json:"works"`
	With    string            `json:"with,omitempty"`    // it works with this only
	Missing string            `json:"missing,omitempty"` // why it does not work
	Without string            `json:"without,omitempty"` // what works without it

	unsafe bool // two owners can have one key
}

// loss describes a server without one of the features.
type loss struct {
	severity severity
	purpose  string // of the permissions that the feature needs
	what     string
	without  string
	do       string
}

const permit = "give the user the permissions that SECURITY.md lists, or use another key, server or plan of the service: see docs/deployments.md"

var losses = map[redisnode.Feature]loss{
	redisnode.Mutex:       {warning, forLocks, "locks", "it cannot vote", permit},
	redisnode.SeveralKeys: {note, forLocks, "locks on several keys", "locks on one key work", permit},
	redisnode.Queue:       {warning, forQueues, "queues", "waiters poll instead of being granted the lock in turn", permit},
	redisnode.Fence:       {note, forFences, "fences", "locks without a fence work", permit},
	redisnode.Guard:       {note, forGuard, "restart guard", "locks without WithRestartGuard work", "use fences (WithFence), or another server: see docs/deployments.md"},
	redisnode.Health:      {note, "", "Locker.Ping", "locks work", permit},
}

// rehearse tries each feature on each server of the node with keys that begin with key. It
// returns the results by the server's address.
func (d deployment) rehearse(ctx context.Context, key string) map[string]redisnode.Rehearsal {
	backend := redisnode.Dial(d.option, nil)
	defer backend.Close()
	select {
	case <-backend.Tried():
	case <-time.After(answerTime):
	case <-ctx.Done():
	}
	results := make(map[string]redisnode.Rehearsal)
	for _, r := range backend.Rehearse(ctx, key) {
		results[r.Address] = r
	}
	return results
}

// readFeatures fills in the features. If no key was given, and the user may not access the keys
// of the rehearsal, it shows nothing.
func (s *server) readFeatures(r redisnode.Rehearsal) {
	if !s.keyed && slices.ContainsFunc(s.Denied, func(d denial) bool { return d.key }) {
		return
	}
	for _, f := range redisnode.Features {
		result, known := r.Results[f]
		if !known {
			continue
		}
		got := feature{Feature: f, Works: result.Err == nil}
		if result.Tagged {
			got.With = "a common hash tag"
		}
		if result.Err != nil {
			got.Missing, got.unsafe = result.Err.Error(), errors.Is(result.Err, redisnode.ErrUnsafe)
		} else if denied := s.denials(forGuard); f == redisnode.Guard && len(denied) > 0 {
			// The rehearsal had another key than the marker.
			got.Works, got.Missing = false, denied[0].what()+": "+denied[0].Said
		}
		if !got.Works {
			got.Without = losses[f].without
		}
		s.Features = append(s.Features, got)
	}
}

// denials returns what the server denies of what has this purpose.
func (s *server) denials(purpose string) (denied []denial) {
	for _, d := range s.Denied {
		if d.For == purpose {
			denied = append(denied, d)
		}
	}
	return denied
}

// lacks reports whether it is known that a feature does not work.
func (s *server) lacks(f redisnode.Feature) bool {
	return slices.ContainsFunc(s.Features, func(got feature) bool { return got.Feature == f && !got.Works })
}

// votes reports whether locks can be taken on the server, as far as is known.
func (s *server) votes(g restartGuard) bool {
	return s.Error == "" && !s.lacks(redisnode.Mutex) && (!g.set() || !s.lacks(redisnode.Guard))
}

// featureFindings judges what does not work and is not explained by permissions.
func (s *server) featureFindings() []finding {
	var found []finding
	for _, f := range s.Features {
		l, check := losses[f.Feature], string(f.Feature)+"-missing"
		switch {
		case f.Works:
			continue
		case f.unsafe:
			found = append(found, finding{danger, check, s.Address, fmt.Sprintf("%v: %s", redisnode.ErrUnsafe, f.Missing), "use servers that keep what they answer; behind a proxy that spreads keys, give the keys of one lock a common hash tag"})
		case len(s.denials(l.purpose)) == 0:
			found = append(found, finding{l.severity, check, s.Address, fmt.Sprintf("no %s (%s): %s", l.what, f.Missing, l.without), l.do})
		}
		if f.Feature == redisnode.Mutex { // the others lack it too
			break
		}
	}
	return found
}

// featureHeader is the header of featureRow.
func featureHeader() []string {
	row := []string{"NODE"}
	for _, f := range redisnode.Features {
		row = append(row, strings.ToUpper(strings.ReplaceAll(string(f), "-", " ")))
	}
	return row
}

// featureRow is the server's row in the table of features.
func (s *server) featureRow() []string {
	row := []string{s.name()}
	for _, f := range redisnode.Features {
		cell := "?"
		for _, got := range s.Features {
			switch {
			case got.Feature != f:
			case got.With != "":
				cell = "yes, with " + got.With
			case got.Works:
				cell = "yes"
			default:
				cell = "no"
			}
		}
		row = append(row, cell)
	}
	return row
}
