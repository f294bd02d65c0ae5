package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/redis-kit/redlock"
)

// watch is a command that runs under a lock.
//
// If the lock is not extended, the command is killed a little before validity ends, and
// asked to stop a grace before that. The lock stays held until then. With redlock.WithGrace
// its keys would be deleted when the grace begins.
type watch struct {
	*run
	lock  *redlock.Lock
	child *child

	kill time.Time // when the command is killed; zero unless it was asked to stop
}

const (
	// glance is how often watch reads the end of validity, which moves when the lock is
	// extended, and when the clock is set or the machine was suspended.
	glance = time.Second
	// dying is the time between SIGKILL and the end of validity, in which the process must end.
	// It is less where the ttl is short.
	dying = 100 * time.Millisecond
)

// wait returns when the command has ended, with an error that has its exit code.
func (w *watch) wait() error {
	ended := w.lock.Context().Done()
	if err := w.lock.AutoExtend(0); err != nil {
		w.stop(err)
	}
	timer := time.NewTimer(w.left())
	defer timer.Stop()
	for {
		select {
		case c := <-w.child.changes:
			if c.stopped == nil {
				return w.ended(c)
			}
			if w.child.yield(c.stopped) && w.lock.Valid() {
				w.child.resume()
			}
		case s := <-w.signals:
			w.child.signal(s)
		case <-ended:
			ended = nil
			w.stop(context.Cause(w.lock.Context()))
		case <-timer.C:
			w.look()
		}
		timer.Reset(w.left())
	}
}

// left is the time until the next action.
func (w *watch) left() time.Duration {
	next := w.kill
	if next.IsZero() {
		next = w.last().Add(-w.grace)
	}
	return min(max(time.Until(next), 0), glance)
}

// last returns when the command must be killed, unless the lock is extended.
func (w *watch) last() time.Time { return w.lock.Until().Add(-min(dying, w.ttl/20)) }

// look takes the action that is due.
func (w *watch) look() {
	switch {
	case !w.kill.IsZero() && time.Until(w.kill) <= 0:
		w.child.kill()
		w.kill = time.Now().Add(glance) // again, if it is still there
	case w.kill.IsZero() && time.Until(w.last()) <= w.grace:
		err := fmt.Errorf("hold %q: not extended", w.key)
		if failed := w.unextended.Load(); failed != nil {
			err = *failed
		}
		w.stop(err)
	}
}

// stop asks the command to stop, because of err, and sets the time to kill it.
func (w *watch) stop(err error) {
	now := time.Now()
	kill := now.Add(w.grace) // may be long before the end of validity, if nodes answered that the lock is gone
	if last := w.last(); last.Before(kill) {
		kill = last
	}
	if !w.kill.IsZero() {
		if kill.Before(w.kill) { // the clock was set
			w.kill = kill
		}
		return
	}
	w.kill = kill
	left := kill.Sub(now)
	if left <= 0 || !w.child.terminate() {
		sayf(os.Stderr, "%v: the command is killed in %v", err, max(left, 0).Round(time.Millisecond))
		return
	}
	sayf(os.Stderr, "%v: SIGTERM is sent to the command, SIGKILL follows in %v", err, left.Round(time.Millisecond))
}

// ended is the outcome of a command that has ended.
func (w *watch) ended(c change) error {
	w.child.leave()
	if w.kill.IsZero() {
		if w.lock.Valid() {
			return exitError{code: c.code}
		}
		<-w.lock.Context().Done()
		sayf(os.Stderr, "%v", context.Cause(w.lock.Context()))
	}
	w.child.kill() // the rest of its group
	return exitError{exitLost, fmt.Errorf("hold %q: lock lost: the command ended by %s", w.key, c.how)}
}
