package redisnode_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/redis-kit/redlock/internal/redisnode"
	"github.com/redis-kit/redlock/internal/testkit/eventually"
	"github.com/redis-kit/redlock/internal/testkit/redistest"
)

// endpoint is an address in front of a server. It connects new connections to the server that
// it points to at the time, and passes each command on as rewrite returns it.
type endpoint struct {
	ln net.Listener
	wg sync.WaitGroup

	mu      sync.Mutex // guards what follows
	target  string
	rewrite func(args []string) []string // nil: unchanged
	seen    []string                     // the commands, after their handshakes
	links   map[net.Conn]bool
	dialled int
}

func startEndpoint(t *testing.T, s *redistest.Server) *endpoint {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	e := &endpoint{ln: ln, target: s.Addr(), links: make(map[net.Conn]bool)}
	e.wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			server, err := net.Dial("tcp", e.target)
			e.dialled++
			if err == nil {
				e.links[client] = true
			}
			e.mu.Unlock()
			if err != nil {
				client.Close()
				continue
			}
			e.wg.Go(func() {
				_, _ = io.Copy(client, server)
				client.Close()
			})
			e.wg.Go(func() {
				e.pass(client, server)
				server.Close()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		e.cut()
		e.wg.Wait()
	})
	return e
}

func (e *endpoint) pass(client io.Reader, server io.Writer) {
	for r := bufio.NewReader(client); ; {
		args, err := readArgs(r)
		if err != nil {
			return
		}
		e.mu.Lock()
		if !slices.Contains([]string{"HELLO", "CLIENT", "PING"}, args[0]) {
			e.seen = append(e.seen, strings.Join(args, " "))
		}
		if e.rewrite != nil {
			args = e.rewrite(args)
		}
		e.mu.Unlock()
		var b strings.Builder
		fmt.Fprintf(&b, "*%d\r\n", len(args))
		for _, arg := range args {
			fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
		}
		if _, err := io.WriteString(server, b.String()); err != nil {
			return
		}
	}
}

func readArgs(r *bufio.Reader) ([]string, error) {
	length := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := length()
	args := make([]string, n)
	for i := range args {
		size, failed := length()
		arg := make([]byte, size+2)
		if _, err = io.ReadFull(r, arg); failed != nil || err != nil {
			return nil, errors.Join(failed, err)
		}
		args[i] = string(arg[:size])
	}
	return args, err
}

// point connects new connections to another server.
func (e *endpoint) point(s *redistest.Server) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.target = s.Addr()
}

func (e *endpoint) rewrites(rewrite func(args []string) []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rewrite = rewrite
}

// cut breaks the connections.
func (e *endpoint) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for link := range e.links {
		link.Close()
	}
	clear(e.links)
}

// asked returns the commands since its last call.
func (e *endpoint) asked() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := e.seen
	e.seen = nil
	return seen
}

func (e *endpoint) dials() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dialled
}

func (e *endpoint) option() rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{e.ln.Addr().String()}, ForceSingleClient: true, DisableCache: true, AlwaysPipelining: true, PipelineMultiplex: -1,
		Dialer: net.Dialer{Timeout: eventually.Soon}, ConnWriteTimeout: eventually.Soon,
	}
}

// dial returns a Backend that has dialled the endpoint.
func (e *endpoint) dial(t *testing.T) *redisnode.Redis {
	s := redisnode.Dial(e.option(), nil)
	t.Cleanup(s.Close)
	<-s.Tried()
	return s
}

// wrap returns a Backend over a client of the caller's.
func (e *endpoint) wrap(t *testing.T) *redisnode.Redis {
	client, err := rueidis.NewClient(e.option())
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return redisnode.Wrap(client).(*redisnode.Redis)
}
