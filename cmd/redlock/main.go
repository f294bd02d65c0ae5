// Redlock runs commands under a distributed lock, shows who holds one, and checks the
// nodes that keep it.
//
//	redlock run -nodes r1:6379,r2:6379,r3:6379 nightly-report -- ./report.sh
//	redlock status nightly-report
//	redlock doctor
//
// docs/cli.md describes it.
//
// The command line is read by urfave/cli, which depends on nothing else and takes
// -nodes for --nodes, as Go programs do; cobra would read a group of one-letter flags.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(exitCode(os.Stderr, root().Run(context.Background(), os.Args)))
}
