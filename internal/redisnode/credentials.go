package redisnode

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Credentials returns the user and the password for a connection to the server at addr, which is
// the address that was dialled. Without a password, none is sent.
type Credentials func(ctx context.Context, addr string) (user, password string, err error)

// credentialsTime is how long Credentials may take.
const credentialsTime = 10 * time.Second

// to returns option with a client that asks c whenever it has dialled. The context of c ends
// with ctx, or after credentialsTime.
func (c Credentials) to(ctx context.Context, option rueidis.ClientOption) rueidis.ClientOption {
	dial := option.DialCtxFn
	if dial == nil {
		dial = dialServer
	}
	option.DialCtxFn = func(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
		conn, err := dial(ctx, addr, dialer, config)
		if err != nil {
			return nil, err
		}
		return dialled{conn, addr}, nil
	}
	option.AuthCredentialsFn = func(of rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		ctx, cancel := context.WithTimeout(ctx, credentialsTime)
		defer cancel()
		user, password, err := c(ctx, of.Address.String())
		if err != nil {
			return rueidis.AuthCredentials{}, &credentialsError{err, password}
		}
		return rueidis.AuthCredentials{Username: user, Password: password}, nil
	}
	return option
}

// dialled is a connection whose RemoteAddr is the address that was dialled, with the host's name:
// rueidis passes nothing else on to AuthCredentialsFn.
type dialled struct {
	net.Conn
	addr string
}

// RemoteAddr implements net.Conn.
func (d dialled) RemoteAddr() net.Addr { return address(d.addr) }

// address is that of a server, as it was given.
type address string

// Network implements net.Addr.
func (address) Network() string { return "tcp" }

func (a address) String() string { return string(a) }

// credentialsError is the error of Credentials: nothing has been sent on the connection.
type credentialsError struct {
	err      error
	password string // that was returned with it
}

func (e *credentialsError) Error() string {
	text := e.err.Error()
	if e.password != "" {
		text = strings.ReplaceAll(text, e.password, "…")
	}
	return "credentials: " + text
}

// Unwrap returns no error of a context: that would read like the end of the caller's.
func (e *credentialsError) Unwrap() error {
	if errors.Is(e.err, context.DeadlineExceeded) || errors.Is(e.err, context.Canceled) {
		return nil
	}
	return e.err
}
