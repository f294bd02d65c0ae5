package fencemodel

// grant is the acquire script, and what a queue does for a waiter: it sets the keys of
// an attempt if all are free. It returns the counter, which is at least floor, or 0 if a
// key is held.
func (m *Model) grant(s *state, i, n int, floor uint8) uint8 {
	at := &s.columns[n].node
	counter := floor
	for key := range m.keys() {
		if !m.Attempts[i].has(key) {
			continue
		}
		if at.owner[key] != 0 && (!m.SharedID || at.owner[key] != m.id(i)) {
			return 0
		}
		counter = max(counter, at.counter[key]+1)
	}
	for key := range m.keys() {
		if m.Attempts[i].has(key) {
			at.owner[key], at.counter[key] = m.id(i), counter
		}
	}
	return counter
}

// raise stands for the confirm script: it raises the counters of the attempt's keys to the
// token. It returns the largest counter after that, or 0 if the node refuses.
func (m *Model) raise(s *state, i, n int, token uint8) uint8 {
	at := &s.columns[n].node
	ours := m.owns(s, i, n)
	if !ours && m.Confirming == OwnerChecked {
		return 0
	}
	var counter uint8
	for key := range m.keys() {
		if !m.Attempts[i].has(key) {
			continue
		}
		if ours || m.Confirming == Unchecked {
			at.counter[key] = max(at.counter[key], token)
		}
		counter = max(counter, at.counter[key])
	}
	return counter
}

// refill stands for the extension of a held lock: it sets missing keys again, and changes
// no counter.
func (m *Model) refill(s *state, i, n int) {
	at := &s.columns[n].node
	for key := range m.keys() {
		if m.Attempts[i].has(key) && at.owner[key] != 0 && at.owner[key] != m.id(i) {
			return
		}
	}
	for key := range m.keys() {
		if m.Attempts[i].has(key) {
			at.owner[key] = m.id(i)
		}
	}
}
