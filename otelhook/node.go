package otelhook

import (
	"net"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/redis-kit/redlock"
)

// awaited reports whether an attempt ended while it depended on the silent
// nodes; otherwise the others had decided it.
func awaited(try redlock.Try) bool {
	grants, silence := 0, 0
	for _, vote := range try.Votes {
		switch vote.Kind {
		case redlock.VoteGranted:
			grants++
		case redlock.VoteSilent:
			silence++
		}
	}
	quorum := len(try.Votes)/2 + 1
	return grants < quorum && grants+silence >= quorum
}

// server returns a node's address as attributes of the semantic conventions. A unix
// socket and a group of servers have no port.
func server(node string) []attribute.KeyValue {
	if host, port, err := net.SplitHostPort(node); err == nil {
		if number, err := strconv.Atoi(port); err == nil {
			return []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(number)}
		}
	}
	return []attribute.KeyValue{semconv.ServerAddress(node)}
}
