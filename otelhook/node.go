package otelhook

import (
	"net"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/redis-kit/redlock"
)

// answer is how a vote is to be read.
type answer uint8

const (
	granted answer = iota
	refused        // the node answered that it does not grant
	silent         // there was no answer when the attempt ended
	unasked        // nothing was sent, for no fault of the node's
	failed         // the node did not answer in time, or answered with an error
)

// answers are told by their texts, since redlock does not export them. Any
// other is a failure.
var answers = map[string]answer{
	"held by another owner": refused,
	"not held here":         refused,
	"the key was gone; it is set again, and counts from the next extension on": refused,
	"not waited for":               silent,
	"not sent: the lock has ended": unasked,
	"the node is closed":           unasked,
}

func answerOf(vote redlock.NodeError) answer {
	if vote.Err == nil {
		return granted
	}
	if a, ok := answers[vote.Err.Error()]; ok {
		return a
	}
	return failed
}

// awaited tells whether an attempt ended while it depended on the silent
// nodes; otherwise the others had decided it.
func awaited(try redlock.Try) bool {
	grants, silence := 0, 0
	for _, vote := range try.Votes {
		switch answerOf(vote) {
		case granted:
			grants++
		case silent:
			silence++
		}
	}
	quorum := len(try.Votes)/2 + 1
	return grants < quorum && grants+silence >= quorum
}

// server is a node's address as the semantic conventions have it. A unix
// socket and a group of servers have no port.
func server(node string) []attribute.KeyValue {
	if host, port, err := net.SplitHostPort(node); err == nil {
		if number, err := strconv.Atoi(port); err == nil {
			return []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(number)}
		}
	}
	return []attribute.KeyValue{semconv.ServerAddress(node)}
}
