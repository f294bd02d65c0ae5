package otelhook

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/redis-kit/redlock"
)

// outcome is a value of the redlock.outcome attribute.
type outcome string

const (
	acquired  outcome = "acquired"
	completed outcome = "completed"
	extended  outcome = "extended"
	released  outcome = "released"
	contended outcome = "contended"
	ended     outcome = "ended"
	notHeld   outcome = "not_held"
	lost      outcome = "lost"
	closed    outcome = "closed"
	noQuorum  outcome = "no_quorum"
	timeout   outcome = "timeout"
	cancelled outcome = "cancelled"
	aborted   outcome = "aborted"
	other     outcome = "error"
)

// errAborted is recorded for a handler that did not return.
var errAborted = errors.New("a panic or runtime.Goexit")

var successes = map[redlock.Kind]outcome{
	redlock.OpAcquire: acquired,
	redlock.OpHold:    completed,
	redlock.OpExtend:  extended,
	redlock.OpRelease: released,
}

type failure struct {
	is      error
	outcome outcome
}

// failures are in order of precedence. A hold has no sentinels: its function may return
// those of other locks.
var failures = map[redlock.Kind][]failure{
	redlock.OpAcquire: {
		{context.DeadlineExceeded, timeout},
		{context.Canceled, cancelled},
		{redlock.ErrClosed, closed},
		{redlock.ErrNotAcquired, contended},
		{redlock.ErrNoQuorum, noQuorum},
	},
	redlock.OpHold: {
		{context.DeadlineExceeded, timeout},
		{context.Canceled, cancelled},
	},
	redlock.OpExtend: {
		{redlock.ErrNotHeld, notHeld},
		{context.DeadlineExceeded, timeout},
		{context.Canceled, cancelled},
		{redlock.ErrNoQuorum, noQuorum},
	},
	redlock.OpRelease: {
		{redlock.ErrNotHeld, notHeld},
		{redlock.ErrNoQuorum, noQuorum},
	},
}

func outcomeOf(op *redlock.Op, err error) outcome {
	if err == nil {
		return successes[op.Kind]
	}
	if err == errAborted {
		return aborted
	}
	if op.Lock != nil { // the end of the lock says more than the error
		end, _ := lossOf(op.Lock)
		switch {
		case op.Kind == redlock.OpHold && errors.Is(err, redlock.ErrLost) && end != "":
			return end
		case op.Kind == redlock.OpExtend && errors.Is(err, redlock.ErrNotHeld) && end != lost,
			op.Kind == redlock.OpRelease && errors.Is(err, redlock.ErrNotHeld) && end == closed:
			return ended
		}
	}
	for _, f := range failures[op.Kind] {
		if errors.Is(err, f.is) {
			return f.outcome
		}
	}
	return other
}

// lossOf returns lost or closed, and the cause, for a lock that ended without being
// released. For any other lock it returns "" and nil.
func lossOf(lock *redlock.Lock) (outcome, error) {
	switch cause := context.Cause(lock.Context()); cause {
	case nil, redlock.ErrReleased:
		return "", nil
	case redlock.ErrClosed:
		return closed, cause
	default:
		return lost, cause
	}
}

// isError reports whether an operator should look at the span. That another process holds
// the lock, or that the operation came after the end of its own lock, is no error.
func (o outcome) isError() bool {
	switch o {
	case acquired, completed, extended, released, contended, ended:
		return false
	}
	return true
}

func (o outcome) attribute() attribute.KeyValue {
	return attribute.String("redlock.outcome", string(o))
}

// attributes returns the attributes of an operation with this outcome and error.
func (o outcome) attributes(err error) []attribute.KeyValue {
	switch {
	case !o.isError():
		return []attribute.KeyValue{o.attribute()}
	case o == other:
		return []attribute.KeyValue{o.attribute(), semconv.ErrorType(err)}
	}
	return []attribute.KeyValue{o.attribute(), semconv.ErrorTypeKey.String(string(o))}
}
