// Package redact removes from texts what must not be logged or exported.
package redact

import "regexp"

// Tokens returns text with "[token]" in place of each part that looks like the token of a
// lock. A proxy in front of a server, a middleware or a user's function may quote a
// token.
func Tokens(text string) string { return token.ReplaceAllLiteralString(text, "[token]") }

// token matches what node.AttemptToken and node.CandidateToken return.
var token = regexp.MustCompile(`[A-Z2-7]{26,}([+-][0-9a-z]+)?`)
