// Package redact takes out of texts what must not be logged or exported.
package redact

import "regexp"

// Tokens returns text with "[token]" in place of whatever looks like the token of a lock.
// A proxy in front of a server, a middleware or a user's function may quote one.
func Tokens(text string) string { return token.ReplaceAllLiteralString(text, "[token]") }

// token is what node.AttemptToken and node.CandidateToken make.
var token = regexp.MustCompile(`[A-Z2-7]{26,}([+-][0-9a-z]+)?`)
