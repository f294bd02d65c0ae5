package main

import (
	"os"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/redis-kit/redlock/internal/redisnode"
)

// tlsFlag is a flag that names a file of TLS. Its variable is read here, as that of the nodes is.
type tlsFlag struct{ name, variable, usage string }

var (
	caFlag   = tlsFlag{"tls-ca", "REDLOCK_TLS_CA", "use TLS, and trust the authorities whose certificates are in this PEM `file`, instead of the system's"}
	certFlag = tlsFlag{"tls-cert", "REDLOCK_TLS_CERT", "use TLS with the client certificate in this PEM `file`"}
	keyFlag  = tlsFlag{"tls-key", "REDLOCK_TLS_KEY", "the PEM `file` with the private key of -tls-cert"}
)

func tlsFlags() []cli.Flag {
	var flags []cli.Flag
	for _, f := range []tlsFlag{caFlag, certFlag, keyFlag} {
		flags = append(flags, &cli.StringFlag{Name: f.name, Usage: f.usage, DefaultText: "$" + f.variable})
	}
	return flags
}

// value returns the name of the file, and what gave it: the flag, or the variable.
func (f tlsFlag) value(c *cli.Command) (file, source string) {
	if c.IsSet(f.name) {
		return c.String(f.name), "-" + f.name
	}
	return os.Getenv(f.variable), f.variable
}

// tlsFiles holds the files of all nodes' TLS.
type tlsFiles struct {
	redisnode.Files
	source string // what gave the first of them, for errors; "" if there are none
}

// readTLS reads the flags or else the variables, and refuses files that cannot be used.
func readTLS(c *cli.Command) (tlsFiles, error) {
	ca, caSource := caFlag.value(c)
	cert, certSource := certFlag.value(c)
	key, keySource := keyFlag.value(c)
	files := tlsFiles{Files: redisnode.Files{CA: ca, Cert: cert, Key: key}}
	switch {
	case cert != "" && key == "":
		return files, usagef("%s: needs -%s or %s, the file with the certificate's private key", certSource, keyFlag.name, keyFlag.variable)
	case cert == "" && key != "":
		return files, usagef("%s: needs -%s or %s, the file with the key's certificate", keySource, certFlag.name, certFlag.variable)
	case ca != "":
		files.source = caSource
	case cert != "":
		files.source = certSource
	}
	sources := map[string]string{"tls_ca": caSource, "tls_cert": certSource, "tls_key": keySource}
	if parameter, reason := files.Check(); reason != "" {
		return files, usagef("%s: %s", sources[parameter], reason)
	}
	return files, nil
}

// addTo returns the URL of a node with the files, or what is wrong.
func (f tlsFiles) addTo(url string) (string, string) {
	scheme, _, _ := strings.Cut(strings.ToLower(url), "://")
	switch {
	case f.source == "":
		return url, ""
	case scheme != "rediss" && scheme != "valkeys":
		return "", f.source + " is given, and this URL is without TLS: the scheme must be rediss or valkeys"
	}
	return f.AddTo(url), ""
}
