//go:build unix

package redistest

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProbeReadsEveryKindOfReply(t *testing.T) {
	s := Start(t)
	assert.Equal(t, "OK", mustDo(t, s, "SET", "b", "two\r\nlines"))
	assert.Equal(t, "OK", mustDo(t, s, "SET", "a", ""))
	assert.Equal(t, "two\r\nlines", mustDo(t, s, "GET", "b"))
	assert.Equal(t, int64(2), mustDo(t, s, "DEL", "a", "b"))
	assert.Nil(t, mustDo(t, s, "GET", "a"))
	assert.Nil(t, mustDo(t, s, "BLPOP", "none", "0.01"))
	assert.Equal(t, []any{int64(1), nil, []any{}, "x", RESPError("no")},
		mustDo(t, s, "EVAL", "return {1, false, {}, 'x', {err='no'}}", "0"))

	_, err := s.Do("HGET", "b")
	var reply RESPError
	require.ErrorAs(t, err, &reply)
	assert.Contains(t, reply.Error(), "wrong number of arguments")

	_, ok := s.Get(t, "a")
	assert.False(t, ok)
	mustDo(t, s, "MSET", "z", "1", "y", "2")
	assert.Equal(t, []string{"y", "z"}, s.Keys(t))
}

func TestProbeRejectsWhatIsNotAReply(t *testing.T) {
	for _, text := range []string{"", "\r\n", "+OK\n", "?1\r\n", "$x\r\n", "$5\r\nab", "*2\r\n:1\r\n"} {
		_, err := readReply(bufio.NewReader(strings.NewReader(text)))
		assert.Error(t, err, "%q", text)
	}
}

func TestOracleFailsTheTestWhenItCannotAsk(t *testing.T) {
	s := Start(t)
	s.Kill()
	assert.Contains(t, fatal(t, func(t testing.TB) { s.Get(t, "k") }), "refused")
	assert.Contains(t, fatal(t, func(t testing.TB) { s.Keys(t) }), "refused")
}
