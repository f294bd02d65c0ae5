//go:build !race

package redlock

// allocsPerCycle bounds what a cycle over three nodes allocates where there is no
// middleware.
const allocsPerCycle = 8

// RaceDetector reports whether the tests run under the race detector, which makes
// everything several times slower.
const RaceDetector = false
