//go:build !race

package redlock

// allocsPerCycle bounds what a cycle over three nodes allocates where there is no
// middleware.
const allocsPerCycle = 8
