// The program benchmarks runs the same work through redlock, its peers and
// plain rueidis, on servers that it starts itself, and prints Markdown:
//
//	go run . -out ../docs/bench
//	go run . -quick -only cycle,hung
//
// Only ratios within one run are meaningful, because the servers share the machine with
// the clients. So the implementations take turns, round by round, and each is compared
// with the floor of the same round: docs/performance.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if os.Getenv(inChild) != "" {
		child()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("benchmarks", flag.ExitOnError)
	s := full()
	short := flags.Bool("quick", false, "small sizes and few rounds: a look, no figures to quote")
	rounds := flags.Int("rounds", 0, "rounds of each measurement (default 7, quick 3)")
	locks := flags.Int("locks", 0, "locks held at a time (default 100000, quick 10000)")
	lockTTL := flags.Duration("ttl", 0, "their ttl (default 30s, quick 3s)")
	ttls := flags.Int("ttls", s.ttls, "for how many ttl they are held")
	only := flags.String("only", "", "scenarios to run, with commas between them (default all: "+strings.Join(names(), ",")+")")
	out := flags.String("out", "", "directory for results.txt and the charts (default: only print)")
	_ = flags.Parse(args)

	if *short {
		s = quick()
	}
	s.progress = os.Stderr
	s.ttls = *ttls
	if *rounds > 0 {
		s.rounds = *rounds
	}
	if *locks > 0 {
		s.locks = *locks
	}
	if *lockTTL > 0 {
		s.ttl = *lockTTL
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	return run(ctx, s, chosen, os.Stdout, *out)
}

func names() []string {
	var all []string
	for _, sc := range scenarios {
		all = append(all, sc.name)
	}
	return all
}

func choose(only string) ([]scenario, error) {
	if only == "" {
		return scenarios, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(only, ",") {
		i := slices.Index(names(), name)
		if i < 0 {
			return nil, fmt.Errorf("-only %s: no such scenario, there are %s", name, strings.Join(names(), ", "))
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}

// run writes the Markdown to w and, if there is an out, with the charts into
// that directory.
func run(ctx context.Context, s settings, chosen []scenario, w io.Writer, out string) error {
	server, err := serverVersion()
	if err != nil {
		return err
	}
	text := preamble(s, server)
	var charts []*chart
	for _, sc := range chosen {
		sec, err := sc.run(ctx, s)
		if err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
		text += "\n" + sec.String()
		charts = append(charts, sec.Charts...)
	}
	if _, err := io.WriteString(w, text); err != nil || out == "" {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, c := range charts {
		if err := c.write(out); err != nil {
			return fmt.Errorf("chart %s: %w", c.File, err)
		}
	}
	return os.WriteFile(filepath.Join(out, "results.txt"), []byte(text), 0o644)
}

// serverVersion returns the version of the servers.
func serverVersion() (version string, err error) {
	err = withHost(func(h *host) error {
		info, err := start(h, 1, 0).nodes[0].Do("INFO", "server")
		if err != nil {
			return err
		}
		// Valkey gives the version of Redis that it is compatible with too.
		for _, name := range []string{"Redis", "Valkey"} {
			if _, rest, ok := strings.Cut(info.(string), strings.ToLower(name)+"_version:"); ok {
				number, _, _ := strings.Cut(rest, "\r\n")
				version = name + " " + number
			}
		}
		return nil
	})
	return version, err
}
