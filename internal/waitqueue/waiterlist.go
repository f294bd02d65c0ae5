package waitqueue

// waiterList holds the waiters of a localQueue, in order. It is a doubly linked list, so that
// any waiter can leave in constant time. The zero value is empty.
type waiterList struct {
	first, last *Waiter
	n           int
}

// push adds w at the end.
func (l *waiterList) push(w *Waiter) { l.insert(w, l.last, nil) }

// pushFront adds w at the front.
func (l *waiterList) pushFront(w *Waiter) { l.insert(w, nil, l.first) }

func (l *waiterList) insert(w, before, after *Waiter) {
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

// remove removes w, if it is in the list.
func (l *waiterList) remove(w *Waiter) {
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

// pop removes the first waiter and returns it. There must be one.
func (l *waiterList) pop() *Waiter {
	w := l.first
	l.remove(w)
	return w
}
