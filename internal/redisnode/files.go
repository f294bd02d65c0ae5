package redisnode

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// Files names the files of a node's TLS, as the parameters tls_ca, tls_cert and tls_key of its
// URL do.
type Files struct {
	CA        string // certificates of the authorities that are trusted; "": those of the system
	Cert, Key string // of the client; "": none
}

// Check reads the files, and returns what is wrong and with which parameter.
func (f Files) Check() (parameter, reason string) { return f.load(new(tls.Config)) }

// AddTo returns a URL with the parameters that it lacks. A certificate and its key belong
// together: the URL keeps its own.
func (f Files) AddTo(text string) string {
	_, after, _ := strings.Cut(text, "?")
	query, err := url.ParseQuery(after)
	if err != nil {
		return text // as it is refused
	}
	add := func(name, file string) {
		if file == "" {
			return
		}
		separator := "?"
		if strings.Contains(text, "?") {
			separator = "&"
		}
		text += separator + name + "=" + url.QueryEscape(file)
	}
	if !query.Has("tls_ca") {
		add("tls_ca", f.CA)
	}
	if !query.Has("tls_cert") && !query.Has("tls_key") {
		add("tls_cert", f.Cert)
		add("tls_key", f.Key)
	}
	return text
}

// filesOf returns the files that a URL names.
func filesOf(query url.Values) Files {
	return Files{query.Get("tls_ca"), query.Get("tls_cert"), query.Get("tls_key")}
}

// checkFile returns what is wrong with the name of a file. It does not quote the name: that may be
// the text of a key.
func checkFile(parameter, name string) string {
	switch {
	case name == "":
		return parameter + " is empty: must be the name of a PEM file"
	case isText(name):
		return parameter + " is not the name of a file: must be that of a PEM file, and not its text"
	}
	return ""
}

// isText reports whether the name of a file is the text of one.
func isText(name string) bool {
	return strings.Contains(name, "-----BEGIN") || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

// checkFiles returns what else in a URL is at odds with the files that it names.
func checkFiles(u *url.URL, query url.Values) string {
	for _, name := range []string{"tls_ca", "tls_cert", "tls_key"} {
		switch {
		case !query.Has(name):
		case len(query[name]) > 1:
			return name + " is there twice: must be one file"
		case u.Scheme != "rediss" && u.Scheme != "valkeys":
			return name + " without TLS: the scheme must be rediss or valkeys"
		}
	}
	if query.Has("tls_ca") && isTrue(query, "skip_verify") {
		return "tls_ca besides skip_verify, which trusts any server"
	}
	return ""
}

// load reads the files into config, or returns what is wrong and with which parameter.
func (f Files) load(config *tls.Config) (parameter, reason string) {
	if f.CA != "" {
		text, reason := readFile(f.CA)
		if reason != "" {
			return "tls_ca", reason
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return "tls_ca", fileName(f.CA) + " holds no certificate: must be a PEM file with the certificates of the authorities (BEGIN CERTIFICATE)"
		}
	}
	switch {
	case f.Cert == "" && f.Key == "":
		return "", ""
	case f.Key == "":
		return "tls_cert", "is there without tls_key: must be both, the client's certificate and its private key"
	case f.Cert == "":
		return "tls_key", "is there without tls_cert: must be both, the client's certificate and its private key"
	}
	cert, reason := readFile(f.Cert)
	if reason != "" {
		return "tls_cert", reason
	}
	key, reason := readFile(f.Key)
	if reason != "" {
		return "tls_key", reason
	}
	return loadPair(config, f, cert, key)
}

// loadPair reads a certificate and its key. The errors of crypto/tls do not say which of the two
// files is wrong.
func loadPair(config *tls.Config, f Files, cert, key []byte) (parameter, reason string) {
	const certNeeded = ": must be a PEM file with the client's certificate, and after it those up to the authority (BEGIN CERTIFICATE)"
	const keyNeeded = ": must be a PEM file with the certificate's private key (BEGIN PRIVATE KEY), without a passphrase"
	first := blockOf(cert, func(kind string) bool { return kind == "CERTIFICATE" })
	if first == nil {
		return "tls_cert", fileName(f.Cert) + " holds no certificate" + certNeeded
	}
	if _, err := x509.ParseCertificate(first.Bytes); err != nil {
		return "tls_cert", fileName(f.Cert) + " holds a certificate that cannot be read" + certNeeded
	}
	secret := blockOf(key, func(kind string) bool { return strings.HasSuffix(kind, "PRIVATE KEY") })
	switch {
	case secret == nil:
		return "tls_key", fileName(f.Key) + " holds no private key" + keyNeeded
	case secret.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(secret.Headers["Proc-Type"], "ENCRYPTED"):
		return "tls_key", fileName(f.Key) + " is encrypted" + keyNeeded
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return "tls_key", fileName(f.Key) + " holds no private key of the certificate in " + fileName(f.Cert) + keyNeeded
	}
	config.Certificates = []tls.Certificate{pair}
	return "", ""
}

// blockOf returns the first block of a PEM file whose type is as wanted; nil if there is none.
func blockOf(text []byte, wanted func(kind string) bool) *pem.Block {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || wanted(block.Type) {
			return block
		}
	}
}

// mostBytes is more than any list of authorities has.
const mostBytes = 16 << 20

// readFile returns the text of a file, or why it cannot be read.
func readFile(name string) (text []byte, reason string) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		return nil, fileName(name) + " is not a regular file: must be a PEM file"
	case info.Size() > mostBytes:
		return nil, fileName(name) + " is too large: must be a PEM file"
	default:
		text, err = os.ReadFile(name) //nolint:gosec // the caller names the file
	}
	if err != nil {
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			err = path.Err // less the name
		}
		return nil, fileName(name) + " cannot be read: " + err.Error() + ": must be a PEM file"
	}
	return text, ""
}

// fileName quotes the name of a file. What does not look like one may be a key or a password.
func fileName(name string) string {
	if _, err := os.Stat(name); isText(name) || err != nil && !filepath.IsAbs(name) && filepath.Ext(name) == "" {
		return "(its file)"
	}
	return strconv.Quote(name)
}
