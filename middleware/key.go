package middleware

import (
	"fmt"
	"net/http"
	"net/url"
)

// HeaderKey is a key function for HTTP: prefix and the value of a header, such
// as Idempotency-Key.
//
// As with PathKey and QueryKey, the key is empty if the value is; it is an
// error if it is given more than once or longer than 255 bytes. The prefix
// keeps the keys that clients choose apart from all others. These functions
// panic if name is empty.
func HeaderKey(prefix, name string) func(*http.Request) (string, error) {
	mustName("HeaderKey", name)
	return func(r *http.Request) (string, error) {
		return keyOf(prefix, "header", name, r.Header.Values(name))
	}
}

// PathKey is a key function for HTTP: prefix and a value of the path, such as
// id in the pattern "/orders/{id}". It goes by http.Request.PathValue, which
// http.ServeMux sets, and so does chi, before the handler of the pattern; HTTP
// must wrap that handler, and not the mux.
func PathKey(prefix, name string) func(*http.Request) (string, error) {
	mustName("PathKey", name)
	return func(r *http.Request) (string, error) {
		return keyOf(prefix, "path value", name, []string{r.PathValue(name)})
	}
}

// QueryKey is a key function for HTTP: prefix and a parameter of the URL's
// query. A query that is malformed is an error too.
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

// maxValue is what clients that make up idempotency keys are usually allowed.
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
	return prefix + values[0], nil
}

func mustName(function, name string) {
	if name == "" {
		panic("redlock: middleware." + function + ": name is empty")
	}
}
