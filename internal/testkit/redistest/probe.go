package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// RESPError is an error reply, such as "WRONGTYPE Operation against a key ...".
type RESPError string

func (e RESPError) Error() string { return string(e) }

const probeTimeout = 2 * time.Second

// probe runs one command over a fresh connection. It is written by hand, so
// that the oracle shares no code with the client under test.
func probe(addr string, args ...string) (any, error) {
	deadline := time.Now().Add(probeTimeout)
	conn, err := net.DialTimeout("tcp", addr, probeTimeout)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, command(args...)); err != nil {
		return nil, err
	}
	reply, err := readReply(bufio.NewReader(conn))
	if err != nil {
		return nil, err
	}
	// The reply has been read, so a reset loses nothing. Without it, an oracle that is
	// asked in a tight loop would use up the ports in TIME_WAIT.
	_ = conn.(*net.TCPConn).SetLinger(0)
	if e, ok := reply.(RESPError); ok {
		return nil, e
	}
	return reply, nil
}

// command returns args as a RESP array of bulk strings.
func command(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b.String()
}

// readReply reads one RESP2 reply. An error reply is a value here, for it may
// be an element of an array.
func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line, ok := strings.CutSuffix(line, "\r\n")
	if !ok || line == "" {
		return nil, fmt.Errorf("malformed reply %q", line)
	}
	kind, line := line[0], line[1:]
	switch kind {
	case '+':
		return line, nil
	case '-':
		return RESPError(line), nil
	}
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("malformed reply: %w", err)
	}
	switch kind {
	case ':':
		return n, nil
	case '$':
		if n < 0 {
			return nil, nil
		}
		bulk := make([]byte, n+2)
		if _, err := io.ReadFull(r, bulk); err != nil {
			return nil, err
		}
		return string(bulk[:n]), nil
	case '*':
		if n < 0 {
			return nil, nil
		}
		array := make([]any, n)
		for i := range array {
			if array[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return array, nil
	}
	return nil, errors.New("malformed reply of kind " + strconv.QuoteRune(rune(kind)))
}
