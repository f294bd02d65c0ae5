//go:build race

package redlock

// allocsPerCycle is larger under the race detector, where pools lose things on
// purpose.
const allocsPerCycle = 20

// RaceDetector reports whether the tests run under the race detector, which makes
// everything several times slower.
const RaceDetector = true
