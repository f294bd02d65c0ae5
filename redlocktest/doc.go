// Package redlocktest provides nodes in memory, to test code that uses package redlock without
// a server. The nodes go down, hang, or give a lock to another owner when the test says so:
//
//	func TestMakeReportStopsWhenItsLockIsLost(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // virtual time: the minute passes at once
//			nodes := redlocktest.Start(t, 3)
//			time.AfterFunc(time.Minute, func() { nodes.Steal("report") }) // in mid-work
//			err := MakeReport(t.Context(), nodes.Locker())
//			if !errors.Is(err, redlock.ErrLost) {
//				t.Errorf("MakeReport returned %v", err)
//			}
//		})
//	}
//
// A test without faults needs only [New].
//
// The Lockers are real, with their retries, extensions, deadlines and queues. Only the nodes
// are simulated: they answer at once, and their clocks are exact.
//
// Both real time and the virtual time of [testing/synctest] work. In virtual time, pass [New]
// and [Start] the T of the bubble, not that of the test around it.
package redlocktest
