package redisnode

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
)

// DialFunc dials a server, as rueidis.ClientOption.DialCtxFn does.
type DialFunc = func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error)

// Attentive returns dial, or rueidis' own dial if it is nil, with connections that remember what
// a server said when it refused the handshake.
//
// A server that has too many clients, or is in protected mode, says so at once and closes the
// connection. rueidis has sent several commands by then, and reports for all of them that there
// was no reply to the last. So a connection reads the server's words as they pass. After the
// handshake this costs one check of a flag.
//
// With resp2, for a client that has AlwaysRESP2, a connection sends PING where rueidis sends
// HELLO 2, and rueidis ignores the answer as it would that of a server which does not know
// HELLO. A proxy may know RESP2 alone, and hang up on HELLO.
func Attentive(dial DialFunc, resp2 bool) DialFunc {
	if dial == nil {
		dial = dialServer
	}
	return func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, addr, dialer, config)
		if err != nil {
			return nil, err
		}
		return &greeting{Conn: conn, resp2: resp2}, nil
	}
}

// dialServer is what rueidis does where there is no DialCtxFn.
func dialServer(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
	if config == nil {
		return dialer.DialContext(ctx, "tcp", addr)
	}
	over := tls.Dialer{NetDialer: dialer, Config: config}
	return over.DialContext(ctx, "tcp", addr)
}

// greeting is a connection that listens to its handshake.
//
// rueidis writes the first commands of the handshake, reads their replies, and writes more of
// them, or commands, only after that. So until something has been read, and something written
// after it, no lock command has been sent.
type greeting struct {
	net.Conn
	resp2 bool
	stage atomic.Int32
	said  string // set before stage is refusing; not changed after
}

// The stages of a greeting.
const (
	silent   int32 = iota // nothing has been read
	refusing              // an error has been read, and nothing written since
	greeted               // the connection is in use
)

// Read implements net.Conn.
func (g *greeting) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if g.stage.Load() == greeted {
		return n, err
	}
	if n > 0 {
		g.hear(b[:n])
	}
	return n, g.failed(err)
}

// Write implements net.Conn.
func (g *greeting) Write(b []byte) (int, error) {
	if g.stage.Load() == greeted {
		return g.Conn.Write(b)
	}
	g.stage.CompareAndSwap(refusing, greeted)
	n, err := g.send(b)
	if err != nil && g.stage.Load() == silent {
		// The server has closed the connection. If it said something before, that can be read
		// now; otherwise this fails as the write did.
		var said [2 * mostWords]byte
		if n, _ := g.Conn.Read(said[:]); n > 0 {
			g.hear(said[:n])
		}
	}
	return n, g.failed(err)
}

// The command that a connection of resp2 does not send, and the one that it sends instead. Both
// are answered by one line, or by an error.
var hello2, ping = []byte("*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n"), []byte("*1\r\n$4\r\nPING\r\n")

// send writes b, which is part of the handshake or comes right after it.
func (g *greeting) send(b []byte) (int, error) {
	if !g.resp2 || g.stage.Load() != silent || !bytes.Contains(b, hello2) {
		return g.Conn.Write(b)
	}
	if _, err := g.Conn.Write(bytes.Replace(b, hello2, ping, 1)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// hear notes the first bytes that were read.
func (g *greeting) hear(b []byte) {
	if g.stage.Load() != silent {
		return
	}
	if b[0] != '-' {
		g.stage.Store(greeted)
		return
	}
	g.said = firstWords(string(b[1:]))
	g.stage.Store(refusing)
}

// failed is the error of a connection, with the server's words.
func (g *greeting) failed(err error) error {
	if err == nil {
		return nil
	}
	switch g.stage.Load() {
	case silent:
		return &handshakeError{resp2: g.resp2, err: err}
	case refusing:
		return &handshakeError{g.said, g.resp2, err}
	}
	return err
}

// mostWords bounds the bytes of a server's words that an error repeats.
const mostWords = 200

// firstWords returns the first sentence of an error, or the first mostWords bytes of it.
func firstWords(text string) string {
	text, _, _ = strings.Cut(text, "\r\n")
	text = discreet(errors.New(text)).Error()
	text, _, _ = strings.Cut(text, ". ")
	return strings.ToValidUTF8(text[:min(len(text), mostWords)], "")
}

// handshakeError is the error of a connection that ended before its handshake was
// complete: no lock command has been sent on it.
type handshakeError struct {
	said  string // by the server; "" if it said nothing
	resp2 bool   // HELLO was not sent
	err   error
}

func (e *handshakeError) Error() string {
	if e.said != "" {
		return e.said
	}
	if refused := new(net.OpError); errors.As(e.err, &refused) && refused.Op == "remote error" { // an alert of TLS
		return fmt.Sprintf("the server refused the TLS handshake: %v (for a client certificate: tls_cert and tls_key in the URL, or TLSConfig)", refused.Err)
	}
	advice := "it may expect TLS, or be a proxy without HELLO: add ?protocol=2 to the URL, or set AlwaysRESP2"
	if e.resp2 {
		advice = "it may expect TLS"
	}
	return fmt.Sprintf("the server closed the connection without replying: %v (%s)", e.err, advice)
}

func (e *handshakeError) Unwrap() error { return e.err }
