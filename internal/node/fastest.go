package node

import "time"

// fastest keeps the shortest of the last 64 to 128 durations.
type fastest struct {
	before, now time.Duration
	seen        int
}

func (f *fastest) add(d time.Duration) {
	d = max(d, 1) // 0 stands for none
	if f.seen == 0 || d < f.now {
		f.now = d
	}
	if f.seen++; f.seen == 64 {
		f.before, f.now, f.seen = f.now, 0, 0
	}
}

// least returns the shortest duration, or 0 before the first.
func (f *fastest) least() time.Duration {
	switch {
	case f.seen == 0:
		return f.before
	case f.before == 0:
		return f.now
	}
	return min(f.before, f.now)
}
