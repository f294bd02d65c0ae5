//go:build unix

package redistest
import ("testing";"os")
func TestZZ(t *testing.T) {
	s := StartSentinel(t)
	t.Cleanup(func(){ if t.Failed() { for _, w := range s.watchers { b,_ := os.ReadFile(w.proc.log); t.Logf("%s\n%s", w.addr, b) } } })
	s.KillMaster()
	s.Master()
}
