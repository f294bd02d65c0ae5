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
// If the lock is not extended, the command is asked to stop a grace before validity
// ends, and killed a little before it ends. The lock is held all that time: no
// redlock.WithGrace, which would give the keys back when the grace begins.
type watch struct {
	*run
	lock  *redlock.Lock
	child *child

	lost error     // why the command was asked to stop; nil if it was not
	kill time.Time // when it is killed; zero unless it was asked to stop
}

const (
	// glance is how often the end of validity is looked at: it moves when the lock is
	// extended, and when the clock is set or the machine was suspended.
	glance = time.Second
	// dying is what a process has between SIGKILL and the end of validity, to be gone.
	// It is less where the grace is short.
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

// left is the time until there is something to do.
func (w *watch) left() time.Duration {
	next := w.kill
	if next.IsZero() {
		next = w.lock.Until().Add(-w.grace)
	}
	return min(max(time.Until(next), 0), glance)
}

// look does what is due.
func (w *watch) look() {
	switch {
	case !w.kill.IsZero() && time.Until(w.kill) <= 0:
		w.child.kill()
		w.kill = time.Now().Add(glance) // again, if it is still there
	case w.kill.IsZero() && time.Until(w.lock.Until()) <= w.grace:
		err := fmt.Errorf("hold %q: not extended", w.key)
		if failed := w.unextended.Load(); failed != nil {
			err = *failed
		}
		w.stop(err)
	}
}

// stop asks the command to stop, because of err, and sets the time to kill it.
func (w *watch) stop(err error) {
	// The end of validity, and a grace after err if that comes first: nodes may have
	// answered that the lock is gone.
	until, now := w.lock.Until(), time.Now()
	if graced := now.Add(w.grace); graced.Before(until) {
		until = graced
	}
	kill := until.Add(-min(dying, w.grace/10))
	if w.lost != nil {
		w.lost = err
		if kill.Before(w.kill) { // a step of the clock
			w.kill = kill
		}
		return
	}
	w.lost, w.kill = err, kill
	left := kill.Sub(now)
	if left <= 0 || !w.child.terminate() {
		say(os.Stderr, "%v: the command is killed in %v", err, max(left, 0).Round(time.Millisecond))
		return
	}
	say(os.Stderr, "%v: SIGTERM is sent to the command, SIGKILL follows in %v", err, left.Round(time.Millisecond))
}

// ended is the outcome of a command that has ended.
func (w *watch) ended(c change) error {
	w.child.leave()
	if w.lost == nil && w.lock.Valid() {
		return exitError{code: c.code}
	}
	w.child.kill() // what is left of its group
	if w.lost == nil {
		<-w.lock.Context().Done()
		w.lost = context.Cause(w.lock.Context())
	}
	return exitError{exitLost, fmt.Errorf("hold %q: lock lost: the command ended by %s", w.key, c.how)}
}
