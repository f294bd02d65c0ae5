package node

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxMetadata is the most bytes of metadata that a token can carry.
const maxMetadata = 256

// Tag returns token with metadata appended, which [Metadata] reads. With empty metadata
// it returns token unchanged. The value of the keys is the whole result, so metadata that
// a caller has read releases nothing. The result has no spaces: queue.lua separates
// fields with them.
func Tag(token, metadata string) string {
	if metadata == "" {
		return token
	}
	return token + "." + base64.RawURLEncoding.EncodeToString([]byte(metadata))
}

// Metadata returns the metadata of a token, or "" if it has none that Tag could have put
// there: the key may have been set by another program.
func Metadata(token string) string {
	_, encoded, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || CheckMetadata(string(text)) != nil {
		return ""
	}
	return string(text)
}

// CheckMetadata validates metadata, which is printed in errors, logs and terminals.
func CheckMetadata(text string) error {
	switch {
	case len(text) > maxMetadata:
		return fmt.Errorf("%d bytes: must be at most %d", len(text), maxMetadata)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%q: must be printable characters, in UTF-8", text)
	}
	return nil
}

// Owned is the error of a node on which another owner holds a key.
type Owned struct{ Metadata string } // of the owner; empty if it has none, or is not known

func (o *Owned) Error() string {
	if o.Metadata == "" {
		return "held by another owner"
	}
	return "held by another owner: " + o.Metadata
}

// OwnedBy returns the error of a node on which a key holds token, which is empty if the
// node did not name it.
func OwnedBy(token string) error {
	if metadata := Metadata(token); metadata != "" {
		return &Owned{metadata}
	}
	return errOwned
}
