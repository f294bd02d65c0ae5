package middleware

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"

	"github.com/redis-kit/redlock"
)

// writer notes whether the handler has written. Once the lock is lost, it refuses the first
// write.
type writer struct {
	http.ResponseWriter
	lock  *redlock.Lock // nil: everything passes
	wrote bool
}

// closed reports whether writes are refused.
func (w *writer) closed() bool {
	if w.wrote || w.lock == nil {
		return false
	}
	held := w.lock.Context()
	return held.Err() != nil && !errors.Is(context.Cause(held), redlock.ErrReleased)
}

func (w *writer) WriteHeader(status int) {
	if w.closed() {
		return
	}
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.wrote = true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	if w.closed() {
		return 0, redlock.ErrLost
	}
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// ReadFrom lets the server use sendfile. The first bytes go through Write: they may be
// slow to arrive, and the lock may be lost before that.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	var first int64
	if !w.wrote {
		var err error
		first, err = io.CopyN(struct{ io.Writer }{w}, src, 512)
		switch {
		case err == io.EOF:
			return first, nil
		case err != nil:
			return first, err
		}
	}
	rest, err := io.Copy(w.ResponseWriter, src)
	return first + rest, err
}

// FlushError is the method that http.ResponseController calls.
func (w *writer) FlushError() error {
	if w.closed() {
		return redlock.ErrLost
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if !errors.Is(err, http.ErrNotSupported) {
		w.wrote = true
	}
	return err
}

func (w *writer) Flush() { _ = w.FlushError() }

// Unwrap is for http.ResponseController, which sets deadlines and the like.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// asIs returns w. The result is an http.Hijacker only if the wrapped writer is one:
// handlers test for that, and the writers of HTTP/2 are none.
func (w *writer) asIs() http.ResponseWriter {
	for under := w.ResponseWriter; ; {
		switch u := under.(type) {
		case http.Hijacker:
			return hijacker{w}
		case interface{ Unwrap() http.ResponseWriter }:
			under = u.Unwrap()
		default:
			return w
		}
	}
}

type hijacker struct{ *writer }

func (w hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.closed() {
		return nil, nil, redlock.ErrLost
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.wrote = true
	}
	return conn, rw, err
}
