package history

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hold(contender int, token string, times ...time.Duration) Hold {
	return Hold{Key: "k", Contender: contender, Token: token, Sent: times[0], Returned: times[1], Until: times[2], Ended: times[3], Released: times[4]}
}

func TestHoldsThatTakeTurnsAreFine(t *testing.T) {
	h := New()
	h.AddHold(hold(1, "a", 1, 10, 100, 0, 50)) // released
	h.AddHold(hold(2, "b", 20, 51, 90, 90, 95))
	h.AddHold(hold(3, "c", 30, 91, 200, 0, 150)) // after the second's ctx ended
	h.AddHold(Hold{Key: "other", Token: "d", Sent: 1, Returned: 2, Until: 100})
	require.Empty(t, h.Check())
}

func TestHoldsThatOverlapAreFoundByBoth(t *testing.T) {
	for name, second := range map[string]Hold{
		"inside":            hold(2, "b", 20, 30, 90, 0, 40),
		"across the end":    hold(2, "b", 20, 99, 200, 0, 150),
		"before it is lost": hold(2, "b", 20, 60, 200, 0, 150),
	} {
		h := New()
		h.AddHold(hold(1, "a", 1, 10, 100, 0, 110))
		h.AddHold(second)
		require.Len(t, h.Overlaps(), 1, name)
		require.Len(t, h.Unlinearizable(), 1, name)
	}
}

func TestAnOverlapBehindAShortHoldIsFound(t *testing.T) {
	h := New()
	h.AddHold(hold(1, "a", 1, 10, 1000, 0, 900))
	h.AddHold(hold(2, "b", 20, 30, 50, 0, 40))
	h.AddHold(hold(3, "c", 20, 60, 1000, 0, 70))
	require.Len(t, h.Overlaps(), 2)
	require.NotEmpty(t, h.Unlinearizable())
}

func TestKeysThatWereGoneWhenTheContextEndedAreFound(t *testing.T) {
	h := New()
	lost := hold(1, "a", 1, 10, 100, 100, 110)
	lost.Need, lost.Kept, lost.Probed, lost.Expires = 3, 3, 102, 105
	h.AddHold(lost)
	require.Empty(t, h.Check())
	lost.Kept, lost.Returned, lost.Sent = 2, 11, 2
	lost.Key = "other"
	h.AddHold(lost)
	require.Len(t, h.Unkept(), 1)
	lost.Probed = 106 // too late to tell
	lost.Key = "third"
	h.AddHold(lost)
	require.Len(t, h.Unkept(), 1)
	h.Stalls = []Fault{{"stalled", 95, 99}}
	s := h.Summary()
	require.Equal(t, 3, s.Lost)
	require.Equal(t, time.Duration(4), s.Stall)
	require.Equal(t, time.Duration(5), s.Slack)
}

func TestLatenessIsToldApartFromAStalledProcess(t *testing.T) {
	h := New()
	lost := hold(1, "a", 1, 10, 100, 160, 170)
	lost.Expires = 120
	h.AddHold(lost)
	h.Stalls = []Fault{{"stalled", 90, 110}, {"stalled", 120, 150}}
	s := h.Summary()
	require.Equal(t, []time.Duration{60, 20, 30, -40}, []time.Duration{s.Lateness, s.Unexplained, s.Stall, s.Slack})
}

func TestAStallIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, stop, stopped := New(), make(chan struct{}), make(chan struct{})
		go func() { defer close(stopped); h.WatchStalls(stop) }()
		time.Sleep(100 * time.Millisecond)
		close(stop)
		<-stopped
		require.Empty(t, h.Stalls, "in virtual time there is none")
	})
}

func TestTheFigureIsXMLWithARowForEachContenderAndFault(t *testing.T) {
	h := New()
	h.AddHold(hold(1, "a", 1, 10, 100, 0, 50))
	h.AddHold(hold(7, "b", 20, 51, 90, 90, 95))
	h.AddFault(Fault{"<SIGSTOP>", 30, 60})
	var b strings.Builder
	require.NoError(t, h.WriteSVG(&b))
	texts, marks := 0, 0
	for decoder := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		switch token := token.(type) {
		case xml.CharData:
			for _, label := range []string{"contender 1", "contender 7", "<SIGSTOP>"} {
				if string(token) == label {
					texts++
				}
			}
			if string(token) == "lost" {
				marks++
			}
		}
	}
	require.Equal(t, 3, texts)
	require.Equal(t, 1, marks)
}
