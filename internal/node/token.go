package node

import (
	"crypto/rand"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// A token is random, and contains the age of its owner's request: when the acquisition began.
// So owners whose votes are split agree on which of them came first, even if their clocks or
// the nodes' differ.
//
//	RANDOM+AGE  of an attempt
//	RANDOM-AGE  of a candidate in the queues
//
// Metadata may follow, see Tag.
const (
	attemptMark   = '+'
	candidateMark = '-'
)

// NewAge returns the age of an acquisition that begins now: the wall clock in ms, and
// random bits, so that two acquisitions that begin together differ in age.
func NewAge() int64 { return time.Now().UnixMilli()<<ageBits | mathrand.Int64N(1<<ageBits) }

const ageBits = 20

// AttemptToken returns a token for an attempt of this age.
func AttemptToken(age int64) string { return newToken(attemptMark, age) }

// CandidateToken returns a token for a candidate that has waited since order.
func CandidateToken(order int64) string { return newToken(candidateMark, order) }

func newToken(mark byte, age int64) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	var b [26 + 1 + 20]byte // 26 characters are 130 random bits, as in rand.Text
	_, _ = rand.Read(b[:26])
	for i := range 26 {
		b[i] = alphabet[b[i]%32]
	}
	b[26] = mark
	return string(strconv.AppendInt(b[:27], age, 36))
}

// AttemptAge returns the age in the token of an attempt. It reports false for any other
// token.
func AttemptAge(token string) (int64, bool) { return ageOf(token, attemptMark) }

// CandidateOrder returns when the candidate of a token began to wait. It reports false for any
// other token.
func CandidateOrder(token string) (int64, bool) { return ageOf(token, candidateMark) }

func ageOf(token string, mark byte) (int64, bool) {
	untagged, _, _ := strings.Cut(token, ".") // metadata may look like an age
	i := strings.IndexByte(untagged, mark)
	if i < 0 {
		return 0, false
	}
	age, err := strconv.ParseInt(untagged[i+1:], 36, 64)
	return age, err == nil
}
