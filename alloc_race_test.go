//go:build race

package redlock

// allocsPerCycle is larger under the race detector, where pools lose things on
// purpose.
const allocsPerCycle = 20
