package redlock

import "time"

// keep is the leasthold.Keep of the lock: see that package.
func (l *Lock) keep(until time.Time) bool {
	l.locker.mu.Lock()
	defer l.locker.mu.Unlock()
	if until.IsZero() {
		delete(l.locker.kept, l)
		return true
	}
	if l.locker.closed {
		return false
	}
	if l.locker.kept == nil {
		l.locker.kept = make(map[*Lock]time.Time)
	}
	l.locker.kept[l] = until
	return true
}

// leaveKept ends the locks whose keys are to outlive the Locker, and not their claims: so
// the keys stay until their ttl is over. It returns the locks. The Locker is closed, so
// none is added.
func (l *Locker) leaveKept() (left []*Lock) {
	l.mu.Lock()
	kept := l.kept
	l.kept = nil
	l.mu.Unlock()
	now := time.Now()
	for lock, until := range kept {
		if !now.Before(until) {
			continue
		}
		if _, ok := lock.hold.Pass(ErrClosed); ok {
			left = append(left, lock)
		}
	}
	return left
}
