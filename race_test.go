//go:build race

package redlock

// Under the race detector a sync.Pool drops one in four of the values that it is given, by
// chance. So a cycle's allocations are no whole number, about 12.0, of which AllocsPerRun
// returns 11 or 12.
func init() { allocsPerCycle, pooled = 20, 1 }
