package redisnode

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/redis/rueidis"
)

// ParseURL reads the URL of a deployment, or returns what is wrong with it.
//
// Users paste connection strings of other libraries, and passwords that are not encoded. So the
// reason quotes nothing of the text but the names of files, and each part is checked: a host is
// looked up in DNS, and errors print it as the name of a node.
func ParseURL(text string) (o rueidis.ClientOption, reason string) {
	scheme, rest, isURL := strings.Cut(text, "://")
	if reason := misread(text, isURL); reason != "" {
		return o, reason
	}
	switch scheme = strings.ToLower(scheme); {
	case slices.Contains(foreign, scheme):
		return o, "invalid URL scheme: " + scheme
	case !slices.Contains(schemes, scheme):
		return o, "the scheme is none of " + strings.Join(schemes, ", ")
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && strings.Contains(rest[i:], "@") {
		return o, "an @ after the host (what is special in a password must be percent-encoded)"
	}
	if strings.Contains(rest, "#") {
		return o, "a # (what is special in a password must be percent-encoded)"
	}
	u, err := url.Parse(text)
	if err != nil {
		return o, "not a URL"
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, "the part after the ? is no list of parameters"
	}
	if reason := checkURL(u, query); reason != "" {
		return o, reason
	}
	if o, err = rueidis.ParseURL(text); err != nil {
		return o, "not a URL"
	}
	slices.Sort(o.InitAddress)
	// One address is one server, unless the URL says that it is a Cluster's: rueidis would
	// ask it whether it is, and treat any server that answers CLUSTER SLOTS as one.
	o.ForceSingleClient = len(o.InitAddress) == 1 && o.Sentinel.MasterSet == "" && !isTrue(query, "cluster")
	if o.TLSConfig != nil && !o.ForceSingleClient {
		// Each server has its own name: the one by which it is dialled.
		o.TLSConfig.ServerName = ""
		o.Sentinel.TLSConfig = o.TLSConfig
	}
	if o.TLSConfig != nil {
		parameter, reason := filesOf(query).load(o.TLSConfig)
		if reason != "" {
			return rueidis.ClientOption{}, parameter + " " + reason
		}
	}
	return o, ""
}

// ParseAddress reads host:port, and returns the URL of the server or, as [ParseURL] does, what
// is wrong.
func ParseAddress(text string) (url, reason string) {
	if reason := misread(text, true); reason != "" {
		return "", reason
	}
	switch {
	case strings.Contains(text, "@"):
		return "", "a user or a password without a scheme (a comma in a password must be percent-encoded)"
	case strings.Contains(text, "?") && !strings.ContainsAny(text, ";,"):
		return "", "a parameter without a scheme: must be like redis://host:port?name=value"
	case strings.Contains(text, "="):
		return "", "name=value, as connection strings of other libraries have it: put the user and the password into a URL"
	}
	return "redis://" + text, checkAddress(text)
}

// WithForm returns a reason of [ParseURL] or [ParseAddress], and the form that is accepted unless
// the reason itself says what is.
func WithForm(reason, form string) string {
	if strings.Contains(reason, ": must be ") || strings.Contains(reason, ": the scheme must be ") {
		return reason
	}
	return reason + ": must be like " + form
}

// misread returns why a text is not a single URL.
func misread(text string, isURL bool) string {
	switch {
	case text == "":
		return "empty"
	case strings.ContainsFunc(text, unprintable):
		return "a space, a line break or another character that is not printable"
	case strings.ContainsAny(text[:1]+text[len(text)-1:], "\"'`"):
		return "quotes around it"
	case strings.ContainsAny(text[len(text)-1:], ",;"):
		return "a comma or a semicolon at its end"
	case !isURL:
		return "not a URL"
	}
	return ""
}

// checkURL returns what is wrong with the parts of a URL.
func checkURL(u *url.URL, query url.Values) string {
	db := strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme == "unix" && u.Host != "":
		return "a host before the path of a socket: three slashes are needed"
	case u.Scheme == "unix" && strings.Trim(u.Path, "/ ") == "":
		return "no path of a socket"
	case u.Scheme == "unix":
	case u.Path != "" && !isNumber(db):
		return "the path is not the number of a database"
	case u.Port() == "" && !strings.HasSuffix(u.Host, ":"):
		if reason := checkAddress(u.Host + ":6379"); reason != "" {
			return reason
		}
	default:
		if reason := checkAddress(u.Host); reason != "" {
			return reason
		}
	}
	for name, values := range query {
		check, known := parameters[name]
		if !known {
			return "a parameter that is none of " + strings.Join(slices.Sorted(maps.Keys(parameters)), ", ")
		}
		for _, value := range values {
			if reason := check(value); reason != "" {
				return reason
			}
		}
	}
	if reason := checkCluster(u, query); reason != "" {
		return reason
	}
	return checkFiles(u, query)
}

// checkCluster returns what else in a URL is at odds with its parameter cluster.
func checkCluster(u *url.URL, query url.Values) string {
	switch {
	case len(query["cluster"]) > 1:
		return "cluster is there twice"
	case !query.Has("cluster"):
	case query.Get("master_set") != "":
		return "cluster besides master_set: a node is a Cluster or a Sentinel group"
	case isTrue(query, "cluster") && u.Scheme == "unix":
		return "cluster with a socket: a Cluster needs host:port"
	case !isTrue(query, "cluster") && query.Has("addr"):
		return "cluster is false, but there are several addresses, which are those of a Cluster"
	}
	return ""
}

// isTrue reports whether a parameter is there and true, or has no value.
func isTrue(query url.Values, name string) bool {
	value := query.Get(name)
	is, _ := strconv.ParseBool(value)
	return is || value == "" && query.Has(name)
}

var (
	schemes = []string{"redis", "rediss", "valkey", "valkeys", "unix"}
	// foreign are schemes of other libraries and protocols. An error may quote them, since they
	// are not part of a password.
	foreign = []string{"http", "https", "tcp", "tls", "ssl", "redis-sentinel", "redis+sentinel", "redis-socket", "redis+socket", "redis-cluster", "redis+cluster", "redis+tls"}
)

// parameters are those of rueidis.ParseURL, and cluster and the files of TLS, with checks of their
// values. rueidis ignores others, such as ssl=true and password=… of other libraries.
var parameters = map[string]func(value string) (reason string){
	"addr": func(value string) string {
		if reason := checkAddress(value); reason != "" {
			return "addr is not host:port"
		}
		return ""
	},
	"db": func(value string) string {
		if !isNumber(value) {
			return "db is not the number of a database"
		}
		return ""
	},
	"dial_timeout":  checkTimeout,
	"write_timeout": checkTimeout,
	"skip_verify": func(value string) string {
		if _, err := strconv.ParseBool(value); err != nil && value != "" {
			return "skip_verify is neither true nor false"
		}
		return ""
	},
	"cluster": func(value string) string {
		if _, err := strconv.ParseBool(value); err != nil && value != "" {
			return "cluster is neither true nor false"
		}
		return ""
	},
	"tls_ca":       func(value string) string { return checkFile("tls_ca", value) },
	"tls_cert":     func(value string) string { return checkFile("tls_cert", value) },
	"tls_key":      func(value string) string { return checkFile("tls_key", value) },
	"protocol":     checkWord,
	"client_cache": checkWord,
	"max_retries":  checkWord,
	"client_name":  checkWord,
	"master_set":   checkWord,
}

func checkTimeout(value string) string {
	switch d, err := time.ParseDuration(value); {
	case err != nil:
		return "a timeout is not a duration such as 500ms"
	case d < 0:
		return "a timeout is negative"
	}
	return ""
}

func checkWord(value string) string {
	if strings.ContainsFunc(value, unprintable) {
		return "a parameter has a space, or a character that is not printable"
	}
	return ""
}

// checkAddress returns what is wrong with host:port.
func checkAddress(text string) string {
	host, port, err := net.SplitHostPort(text)
	switch {
	case err != nil:
		return "not host:port"
	case !isPort(port):
		return "the port is not a number from 1 to 65535"
	case host == "":
		return "no host"
	}
	ip, err := netip.ParseAddr(host)
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	switch {
	case err == nil && ip.Is6() == (text[0] == '['):
		return ""
	case err == nil, text[0] == '[', len(host) > 253, slices.ContainsFunc(labels, func(l string) bool { return !isLabel(l) }):
		return "the host is neither a host name nor an IP address"
	case isNumber(labels[len(labels)-1]):
		return "the host is a number, and not an IP address"
	}
	return ""
}

// isLabel reports whether text is one label of a host name, the part between two dots: letters,
// digits and hyphens, and the underscores of names in private networks.
func isLabel(text string) bool {
	return 0 < len(text) && len(text) <= 63 && text[0] != '-' && text[len(text)-1] != '-' &&
		!strings.ContainsFunc(text, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		})
}

func unprintable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0 && isNumber(text)
}

func isNumber(text string) bool {
	return text != "" && len(text) < 10 && strings.Trim(text, "0123456789") == ""
}
