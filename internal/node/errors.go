package node

import "errors"

var (
	errOwned   = &Owned{}
	errGone    = errors.New("key was missing and has been restored; it counts from the next extension")
	errNoKey   = errors.New("not held here")
	errNoSend  = unasked(errNoKey)
	errClosed  = unasked(errors.New("the node is closed"))
	errEnded   = unasked(errors.New("not sent: the lock has ended"))
	errWaiting = errors.New("other processes may be waiting")
	// Not ErrUnasked: the node should have been asked, but the deadline passed first.
	errOverdue = NotRun(errors.New("not sent in time"))
)

// ErrNotRun marks an error after which it is certain that the command did not run and never
// will.
var ErrNotRun = errors.New("not run")

// ErrNotConnected marks the error of a command for which there is no connection to the server.
// It is ErrNotRun, too.
var ErrNotConnected = errors.New("not connected")

// ErrLacking marks the error of a command that this server will refuse whenever it is sent: it
// lacks, or denies its user, a command of Redis without which no lock of the Locker works there.
var ErrLacking = errors.New("the server lacks a command")

// ErrDenied marks the error of a command that the server does not know, or denies its user.
var ErrDenied = errors.New("denied")

// ErrNoPush is the error of a deployment that cannot tell waiters of grants.
var ErrNoPush = errors.New("the deployment cannot push")

// ErrMoved is the error of a subscription that another server has to serve.
var ErrMoved = errors.New("another server has the channel")

// ErrMigrating marks the error of a command for several keys whose slot moves from one server of
// a Cluster to another: until it has moved, only commands for one key run.
var ErrMigrating = errors.New("the slot is being migrated")

// ErrUnasked marks the error of a node that was left out, because there was nothing to ask it.
var ErrUnasked = errors.New("not asked")

// NotRun returns err marked as ErrNotRun, with err's text.
func NotRun(err error) error { return marked{err, ErrNotRun} }

// Lacking returns err marked as ErrLacking, with err's text.
func Lacking(err error) error { return marked{err, ErrLacking} }

// Denied returns err marked as ErrDenied, with err's text.
func Denied(err error) error { return marked{err, ErrDenied} }

// NotConnected returns err marked as ErrNotConnected, with a text that says so.
func NotConnected(err error) error { return notConnected{err} }

// NoPush returns err marked as ErrNoPush, with err's text.
func NoPush(err error) error { return marked{err, ErrNoPush} }

// Migrating returns err marked as ErrMigrating, with err's text.
func Migrating(err error) error { return marked{err, ErrMigrating} }

func unasked(err error) error { return marked{err, ErrUnasked} }

// marked is an error with err's text that matches mark too.
type marked struct{ err, mark error }

func (e marked) Error() string        { return e.err.Error() }
func (e marked) Unwrap() error        { return e.err }
func (e marked) Is(target error) bool { return target == e.mark }

type notConnected struct{ err error }

func (e notConnected) Error() string        { return "not connected: " + e.err.Error() }
func (e notConnected) Unwrap() error        { return e.err }
func (e notConnected) Is(target error) bool { return target == ErrNotConnected || target == ErrNotRun }
