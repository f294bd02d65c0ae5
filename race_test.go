//go:build race

package redlock

// Under the race detector pools drop some of what they are given.
func init() { allocsPerCycle = 20 }
