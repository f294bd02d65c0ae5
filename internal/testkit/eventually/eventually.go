// Package eventually lets tests wait for a condition.
package eventually

import (
	"testing"
	"time"
)

// Soon bounds the wait. It is generous, so that a loaded machine does not fail a test.
const Soon = 30 * time.Second

// True waits until cond holds, and fails the test if it does not within [Soon]. The message names
// the condition and has the details.
//
// It polls on the test's goroutine. So cond may fail the test, and a test that counts
// goroutines finds no extra one.
func True(t testing.TB, what string, cond func() bool, details ...func() string) {
	t.Helper()
	for end := time.Now().Add(Soon); !cond(); time.Sleep(2 * time.Millisecond) {
		if !time.Now().After(end) {
			continue
		}
		for _, detail := range details {
			t.Log(detail())
		}
		t.Fatalf("waited for %v without success: %s", Soon, what)
	}
}
