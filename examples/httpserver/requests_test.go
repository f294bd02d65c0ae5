package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The commands of requests.txt, sent in its order, return the answers that it shows.
func TestTheRequestsBringTheirAnswers(t *testing.T) {
	requests, err := os.ReadFile("requests.txt")
	require.NoError(t, err)
	s := start(t)
	replayed := 0
	var background <-chan string
	for _, c := range commands(string(requests)) {
		if c.line == "wait" {
			require.NotNil(t, background)
			require.Equal(t, c.output, <-background)
			background = nil
			continue
		}
		line, behind := strings.CutSuffix(c.line, " & sleep 1")
		method, path, header := curl(t, line)
		replayed++
		if !behind {
			answer, err := s.dump(method, path, header)
			require.NoError(t, err)
			require.Equal(t, c.output, answer, c.line)
			continue
		}
		require.Empty(t, c.output, "it comes after the wait")
		answer := make(chan string, 1)
		background = answer
		go func() {
			text, err := s.dump(method, path, header)
			assert.NoError(t, err)
			answer <- text
		}()
		// As long as a reader's second, without the clock.
		s.prints(`msg=paying payment=` + header.Get("Idempotency-Key"))
	}
	require.Equal(t, 9, replayed)

	s.stop()
	for _, line := range []string{
		`level=DEBUG msg="lock acquired" key=account:ada`,
		`level=INFO msg="lock not acquired" key=payment:7f3c`,
		`level=WARN msg="lock lost" key=payment:90b2`,
		`level=WARN msg="payment abandoned" payment=90b2`,
		`level=WARN msg="node failing"`,
		`"Name":"redlock.hold"`,
		`"Name":"redlock.acquire.duration"`,
	} {
		require.Contains(t, s.out.String(), line)
	}
}

type command struct{ line, output string }

// commands returns the commands of requests.txt. A line that begins with # explains the next
// one.
func commands(text string) []command {
	var all []command
	for line := range strings.Lines(text) {
		if sent, found := strings.CutPrefix(line, "$ "); found {
			all = append(all, command{line: strings.TrimSpace(sent)})
		} else if !strings.HasPrefix(line, "# ") {
			all[len(all)-1].output += line
		}
	}
	for i := range all {
		all[i].output = strings.TrimRight(all[i].output, "\n")
	}
	return all
}

var word = regexp.MustCompile(`'([^']*)'|\S+`)

// curl reads a curl command.
func curl(t *testing.T, line string) (method, path string, header http.Header) {
	words := word.FindAllString(line, -1)
	for i := range words {
		words[i] = strings.Trim(words[i], "'")
	}
	require.Equal(t, []string{"curl", "-i", "-X"}, words[:3], line)
	method, words = words[3], words[4:]
	header = make(http.Header)
	if words[0] == "-H" {
		name, value, found := strings.Cut(words[1], ": ")
		require.True(t, found, line)
		header.Set(name, value)
		words = words[2:]
	}
	require.Len(t, words, 1, line)
	path, found := strings.CutPrefix(words[0], "localhost:8080")
	require.True(t, found, line)
	return method, path, header
}

// dump returns what curl -i prints, without Date. net/http sorts the handler's headers,
// and writes its own after them.
func (s *service) dump(method, path string, header http.Header) (string, error) {
	req, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		return "", err
	}
	maps.Copy(req.Header, header)
	resp, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", resp.Proto, resp.Status)
	length := resp.Header["Content-Length"]
	resp.Header.Del("Date")
	resp.Header.Del("Content-Length")
	for _, name := range slices.Sorted(maps.Keys(resp.Header)) {
		fmt.Fprintf(&b, "%s: %s\n", name, strings.Join(resp.Header[name], ", "))
	}
	if length != nil {
		fmt.Fprintf(&b, "Content-Length: %s\n", length[0])
	}
	fmt.Fprintf(&b, "\n%s", body)
	return strings.TrimRight(b.String(), "\n"), nil
}
