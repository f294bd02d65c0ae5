// Package redlocktest has nodes in memory, to test code that uses package redlock
// without a server. The nodes go down, hang, or give a lock to another owner when the
// test says so:
//
//	func TestMakeReportStopsWhenItsLockIsLost(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) { // virtual time: nobody waits for that minute
//			nodes := redlocktest.Start(t, 3)
//			time.AfterFunc(time.Minute, func() { nodes.Steal("report") }) // in mid-work
//			err := MakeReport(t.Context(), nodes.Locker())
//			if !errors.Is(err, redlock.ErrLost) {
//				t.Errorf("MakeReport returned %v", err)
//			}
//		})
//	}
//
// If nothing is to go wrong, [New] is enough.
//
// The Lockers are real, with their retries, extensions, deadlines and queues. Only the
// nodes are not. They answer at once, and their clocks are exact.
//
// Everything works in real time, and in the virtual time of [testing/synctest]. There,
// give [New] and [Start] the T of the bubble, not that of the test around it.
package redlocktest
