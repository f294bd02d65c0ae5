package node

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/redis/rueidis"
)

// ParseURL reads the URL of a deployment, or tells what is wrong with it, without quoting
// a user or a password.
func ParseURL(text string) (o rueidis.ClientOption, reason string) {
	_, rest, ok := strings.Cut(text, "://")
	if !ok {
		return o, "not a URL"
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && strings.Contains(rest[i:], "@") {
		// Part of the password would be taken for a path, and quoted in errors.
		return o, "an @ after the host (what is special in a password must be percent-encoded)"
	}
	o, err := rueidis.ParseURL(text)
	if err != nil {
		if reason, ok := strings.CutPrefix(err.Error(), "redis: "); ok && strings.HasPrefix(reason, "invalid ") {
			return o, reason
		}
		return o, "not a URL"
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return o, "not a URL"
	case slices.Contains(o.InitAddress, ""):
		return o, "no path of a socket"
	case o.Dialer.Timeout < 0 || o.ConnWriteTimeout < 0:
		return o, "a timeout is negative"
	}
	for _, addr := range u.Query()["addr"] {
		// rueidis would take the first host in place of one without a port.
		if host, port, err := net.SplitHostPort(addr); err != nil || host == "" || port == "" {
			return o, "addr is not host:port"
		}
	}
	slices.Sort(o.InitAddress)
	// One address is one server: rueidis would ask it whether it is a
	// Cluster, and take whatever answers CLUSTER SLOTS for one.
	o.ForceSingleClient = len(o.InitAddress) == 1 && o.Sentinel.MasterSet == ""
	if o.TLSConfig != nil && !o.ForceSingleClient {
		// Each server has a name of its own: that by which it is dialled.
		o.TLSConfig.ServerName = ""
		o.Sentinel.TLSConfig = o.TLSConfig
	}
	return o, ""
}
