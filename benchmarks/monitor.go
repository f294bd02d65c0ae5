package main

import (
	"bufio"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// monitors count the commands that clients send to servers, by MONITOR. The counters of
// INFO do not serve: both commandstats and total_commands_processed include the commands
// that scripts call. MONITOR costs the server time, so nothing is timed while it runs.
type monitors struct {
	conns []net.Conn
	begin time.Time
	all   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	lines []string
}

func monitor(addrs []string) (*monitors, error) {
	m := &monitors{}
	for _, addr := range addrs {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			m.close()
			return nil, err
		}
		m.conns = append(m.conns, conn)
		in := bufio.NewScanner(conn)
		if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil || !in.Scan() {
			m.close()
			return nil, err
		}
		m.all.Go(func() {
			for in.Scan() {
				m.mu.Lock()
				m.lines = append(m.lines, in.Text())
				m.mu.Unlock()
			}
		})
	}
	m.begin = time.Now()
	return m, nil
}

// stop returns how often each command was sent, and between when.
func (m *monitors) stop() (commands map[string]int, from, to int64) {
	end := time.Now()
	time.Sleep(20 * time.Millisecond) // the last lines are under way
	m.close()
	commands = make(map[string]int)
	for _, line := range m.lines {
		if name, at := clientCommand(line); name != "" && at >= seconds(m.begin) && at <= seconds(end) {
			commands[name]++
		}
	}
	return commands, m.begin.UnixNano(), end.UnixNano()
}

func (m *monitors) close() {
	for _, conn := range m.conns {
		_ = conn.Close()
	}
	m.all.Wait()
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// clientCommand returns the command that a client has sent, according to a line of
// MONITOR, and its time. A script is called by the beginning of its digest. The name is
// empty for a command that a script has called: it has no address.
//
//	+1700000000.123456 [0 127.0.0.1:50000] "EVALSHA" "2f6e1c…" …
//	+1700000000.123460 [0 lua] "GET" …
func clientCommand(line string) (name string, at float64) {
	when, rest, _ := strings.Cut(strings.TrimPrefix(line, "+"), " [")
	who, what, _ := strings.Cut(rest, "] ")
	at, err := strconv.ParseFloat(when, 64)
	if err != nil || !strings.Contains(who, ":") {
		return "", 0
	}
	words := strings.SplitN(what, " ", 3)
	name = strings.ToLower(strings.Trim(words[0], `"`))
	if name == "evalsha" && len(words) > 1 && len(words[1]) > 5 {
		name += " " + words[1][1:5]
	}
	return name, at
}
