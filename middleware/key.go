package middleware

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/redis-kit/redlock/internal/node"
)

// HeaderKey returns a key function for [HTTP]. The key is prefix and the value of a
// header, such as Idempotency-Key. The prefix keeps the keys that clients choose apart
// from all others.
//
// The key is empty if the header is missing or empty. It is an error if the header is
// given more than once or is longer than 255 bytes, or if the key is a name that the
// library uses, as it contains ":redlock:" or ":redlock.". The same goes for [PathKey]
// and [QueryKey]. All three panic if name is empty.
func HeaderKey(prefix, name string) func(*http.Request) (string, error) {
	mustName("HeaderKey", name)
	return func(r *http.Request) (string, error) {
		return keyOf(prefix, "header", name, r.Header.Values(name))
	}
}

// PathKey returns a key function for [HTTP]. The key is prefix and a value of the path,
// such as id in the pattern "/orders/{id}". It uses [http.Request.PathValue], which
// [http.ServeMux] and chi set when they call the handler of the pattern. So HTTP must
// wrap that handler, not the mux. See [HeaderKey] for what is an error.
func PathKey(prefix, name string) func(*http.Request) (string, error) {
	mustName("PathKey", name)
	return func(r *http.Request) (string, error) {
		return keyOf(prefix, "path value", name, []string{r.PathValue(name)})
	}
}

// QueryKey returns a key function for [HTTP]. The key is prefix and a parameter of the
// URL's query. A malformed query is an error. See [HeaderKey] for what else is.
func QueryKey(prefix, name string) func(*http.Request) (string, error) {
	mustName("QueryKey", name)
	return func(r *http.Request) (string, error) {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return "", fmt.Errorf("query: %w", err)
		}
		return keyOf(prefix, "query parameter", name, query[name])
	}
}

// maxValue is the usual limit of idempotency keys, in bytes.
const maxValue = 255

func keyOf(prefix, where, name string, values []string) (string, error) {
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", nil
	case len(values) > 1:
		return "", fmt.Errorf("%s %s: given %d times: once is accepted", where, name, len(values))
	case len(values[0]) > maxValue:
		return "", fmt.Errorf("%s %s: %d bytes: at most %d are accepted", where, name, len(values[0]), maxValue)
	}
	key := prefix + values[0]
	if err := node.Reserved(key); err != nil {
		return "", fmt.Errorf("%s %s: %w", where, name, err)
	}
	return key, nil
}

func mustName(function, name string) {
	if name == "" {
		panic("redlock: middleware." + function + ": name is empty")
	}
}
