package middleware

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/redis-kit/redlock"
)

// Problem is how [HTTP] answers a request that it did not serve. It has the members of
// RFC 9457, and names neither the key nor a node nor a token.
type Problem struct {
	Type     string `json:"type,omitempty"` // a URI; empty, the default, means about:blank
	Title    string `json:"title,omitempty"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	Instance string `json:"instance,omitempty"`

	// Err is the error that HTTP answers. It is not for clients: it names keys and nodes.
	Err error `json:"-"`
}

// ServeHTTP writes p as application/problem+json.
func (p Problem) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(p)
	if err != nil { // a Problem has only strings and a number
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n')) // the client may have gone
}

// answer answers a request that was not served because of err.
func (g *gate) answer(w http.ResponseWriter, r *http.Request, err error) {
	a := g.answerTo(r.Context(), err)
	if a.retry && g.retryAfter > 0 {
		seconds := (g.retryAfter + time.Second - 1) / time.Second
		w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	rendered := &writer{ResponseWriter: w}
	g.render(rendered.asIs(), r, Problem{Title: http.StatusText(a.status), Status: a.status, Detail: a.detail, Err: err})
	if !rendered.wrote {
		w.WriteHeader(a.status)
	}
}

func (c httpConfig) answerTo(ctx context.Context, err error) answer {
	a := answer{status: c.otherwise, detail: "The request could not be served."}
	if i := slices.IndexFunc(answers, func(a answer) bool { return errors.Is(err, a.err) }); i >= 0 {
		a = answers[i]
	}
	if a.err == redlock.ErrNotAcquired && ctx.Err() != nil && !errors.As(err, new(*redlock.QuorumError)) {
		a.status, a.detail = http.StatusServiceUnavailable, "The time for the request was over. It was not served."
	}
	for _, s := range c.statuses { // the last that matches counts
		if slices.ContainsFunc(s.errs, func(target error) bool { return errors.Is(err, target) }) {
			a.status = s.status
		}
	}
	return a
}

// answer is the answer of HTTP to an error.
type answer struct {
	err    error
	status int
	retry  bool // with Retry-After
	detail string
}

// answers are in order of precedence: an error may match several. A lock may be lost
// because its Locker was closed, and a wait may end because of that.
var answers = []answer{
	{ErrKey, http.StatusBadRequest, false, "The request does not say what to lock."},
	{redlock.ErrLost, http.StatusServiceUnavailable, false, "The lock was lost while the request was served. It may have been served in part."},
	{redlock.ErrClosed, http.StatusServiceUnavailable, true, "The service is shutting down. The request was not served."},
	{redlock.ErrNoQuorum, http.StatusServiceUnavailable, true, "The lock cannot be decided at present. The request was not served."},
	{redlock.ErrNotAcquired, http.StatusLocked, true, "Another request holds the lock. This one was not served."},
}
