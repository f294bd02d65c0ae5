package waitqueue

// waiters is the waiters of a line, in order: a doubly linked list, so that any of many
// can leave at once. The zero value is empty.
type waiters struct {
	first, last *Waiter
	n           int
}

// push puts w at the end.
func (l *waiters) push(w *Waiter) { l.insert(w, l.last, nil) }

// pushFront puts w at the front.
func (l *waiters) pushFront(w *Waiter) { l.insert(w, nil, l.first) }

func (l *waiters) insert(w, before, after *Waiter) {
	w.before, w.after, w.queued = before, after, true
	if before == nil {
		l.first = w
	} else {
		before.after = w
	}
	if after == nil {
		l.last = w
	} else {
		after.before = w
	}
	l.n++
}

// remove takes w out, if it is there.
func (l *waiters) remove(w *Waiter) {
	if !w.queued {
		return
	}
	if w.before == nil {
		l.first = w.after
	} else {
		w.before.after = w.after
	}
	if w.after == nil {
		l.last = w.before
	} else {
		w.after.before = w.before
	}
	w.before, w.after, w.queued = nil, nil, false
	l.n--
}

// pop takes the first. There must be one.
func (l *waiters) pop() *Waiter {
	w := l.first
	l.remove(w)
	return w
}
