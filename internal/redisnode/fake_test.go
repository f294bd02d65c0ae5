package redisnode

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/testkit/eventually"
)

// fake is a server that completes the handshake, and gives one answer to every other command.
type fake struct {
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]bool
	reply []byte
	after after
	resp2 bool
	hello []byte        // the answer to HELLO; nil: Redis'
	asked chan struct{} // closed when a command has arrived
}

// after is what the fake does after an answer.
type after int

const (
	goOn after = iota
	closeConn
	fallSilent
)

func startFake(t testing.TB) *fake {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &fake{ln: ln, conns: make(map[net.Conn]bool)}
	s.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[conn] = true
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.hangUp()
		s.wg.Wait()
	})
	return s
}

func (s *fake) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

func (s *fake) answer(reply []byte, then after, resp2 bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply, s.after, s.resp2, s.asked = reply, then, resp2, make(chan struct{})
}

func (s *fake) refuseHello(reply string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hello = []byte(reply)
}

func (s *fake) option() rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{s.ln.Addr().String()}, ForceSingleClient: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
		ConnWriteTimeout: eventually.Soon, Dialer: net.Dialer{Timeout: eventually.Soon, KeepAlive: time.Second},
	}
}

func (s *fake) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	r := bufio.NewReader(conn)
	for {
		command, err := readCommand(r)
		if err != nil {
			return
		}
		s.mu.Lock()
		reply, then := s.reply, goOn
		switch {
		case command == "HELLO" && s.hello != nil:
			reply = s.hello
		case command == "HELLO" && s.resp2:
			reply = []byte("-ERR unknown command 'HELLO'\r\n")
		case command == "HELLO":
			reply = []byte("%2\r\n+version\r\n+7.0.0\r\n+proto\r\n:3\r\n")
		case command == "CLIENT":
			reply = []byte("+OK\r\n")
		case command == "PING":
			reply = []byte("+PONG\r\n")
		default:
			then = s.after
			select {
			case <-s.asked:
			default:
				close(s.asked)
			}
		}
		s.mu.Unlock()
		_, err = conn.Write(reply)
		switch {
		case err != nil || then == closeConn:
			_ = conn.(*net.TCPConn).SetLinger(0) // not thousands of ports in TIME_WAIT
			return
		case then == fallSilent:
			_, _ = io.Copy(io.Discard, r)
			return
		}
	}
}

func readCommand(r *bufio.Reader) (string, error) {
	length := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := length()
	var first string
	for i := 0; i < n && err == nil; i++ {
		var size int
		if size, err = length(); err != nil {
			break
		}
		arg := make([]byte, size+2)
		if _, err = io.ReadFull(r, arg); i == 0 {
			first = string(arg[:size])
		}
	}
	return first, err
}
