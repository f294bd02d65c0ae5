package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v3"
)

func doctorCommand() *cli.Command {
	return leaf(&cli.Command{
		Name:      "doctor",
		Usage:     "check what works on the nodes, and what endangers locks",
		UsageText: "redlock doctor [options] [KEY]",
		Description: `KEY is the key of a lock, or begins like one: doctor then checks whether the user may
access it. The key is not changed. Doctor takes and releases locks on new keys that begin
with KEY, and deletes them. The exit code is 78 if there is a danger, and 0 otherwise.`,
		Flags: []cli.Flag{jsonFlag()},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.NArg() > 1 {
				return usagef("doctor: %d arguments: the form is redlock doctor [options] [KEY]", c.NArg())
			}
			key, deployments, g, err := readSubject(c)
			if err != nil {
				return err
			}
			return show(c, examine(ctx, deployments, key, g))
		},
	})
}

// diagnosis is what doctor found. Its JSON is documented in docs/cli.md.
type diagnosis struct {
	Servers  []*server `json:"servers"`
	Findings []finding `json:"findings"`
}

// finding is a danger to locks, and its remedy.
type finding struct {
	Severity severity `json:"severity"`
	Check    string   `json:"check"`
	Node     string   `json:"node,omitempty"`
	Text     string   `json:"text"`
	Do       string   `json:"do"`
}

type severity string

const (
	danger  severity = "danger"  // two processes may hold a lock, or none can
	warning severity = "warning" // only in rare cases, or it costs availability
	note    severity = "note"    // doctor could not check it, or only some locks need it
)

var severities = []severity{danger, warning, note}

// examine looks at all nodes at once.
func examine(ctx context.Context, deployments []deployment, key string, g restartGuard) diagnosis {
	found := make([][]*server, len(deployments))
	var looking sync.WaitGroup
	for i, d := range deployments {
		looking.Go(func() { found[i] = d.servers(ctx, key, g) })
	}
	looking.Wait()
	servers := slices.Concat(found...)
	compareClocks(servers)
	d := diagnosis{servers, findings(servers, len(deployments), g)}
	slices.SortStableFunc(d.Findings, func(a, b finding) int {
		return slices.Index(severities, a.Severity) - slices.Index(severities, b.Severity)
	})
	return d
}

func (d diagnosis) print(w io.Writer) error {
	rows := [][]string{{"NODE", "SERVER", "MODE", "ROLE", "LATENCY (MIN, MEDIAN)", "CLOCK", "PERSISTENCE", "EVICTION"}}
	for _, s := range d.Servers {
		rows = append(rows, s.row())
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	rows = [][]string{{}, featureHeader()}
	for _, s := range d.Servers {
		rows = append(rows, s.featureRow())
	}
	if err := table(w, rows...); err != nil {
		return err
	}
	printed, count := make(map[finding]bool), make(map[severity]int)
	for _, f := range d.Findings {
		nodes := d.nodesWith(f)
		if f.Node = ""; printed[f] {
			continue
		}
		printed[f] = true
		count[f.Severity]++
		subject := strings.Join(append(nodes, f.Text), ": ")
		if _, err := fmt.Fprintf(w, "\n%-8s %s\n         Do: %s\n", strings.ToUpper(string(f.Severity)), subject, f.Do); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\nDangers: %d, warnings: %d\n", count[danger], count[warning])
	return err
}

// nodesWith names, in one text, the nodes that share a finding; empty if it is not about
// nodes.
func (d diagnosis) nodesWith(f finding) []string {
	var nodes []string
	for _, other := range d.Findings {
		if node := other.Node; node != "" {
			if other.Node = f.Node; other == f {
				nodes = append(nodes, node)
			}
		}
	}
	if nodes == nil {
		return nil
	}
	return []string{strings.Join(nodes, ", ")}
}

// err returns the error with which doctor ends if it found a danger.
func (d diagnosis) err() error {
	if slices.ContainsFunc(d.Findings, func(f finding) bool { return f.Severity == danger }) {
		return exitError{code: exitDanger}
	}
	return nil
}
