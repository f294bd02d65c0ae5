package main

import (
	"encoding/json"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v3"
)

// table writes rows with aligned columns.
func table(w io.Writer, rows ...[]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		if _, err := io.WriteString(t, strings.Join(row, "\t")+"\n"); err != nil {
			return err
		}
	}
	return t.Flush()
}

// result is the outcome of a command.
type result interface {
	print(w io.Writer) error
	err() error // the error that the command ends with
}

// show writes a result, for people or for machines, and returns its error.
func show(c *cli.Command, r result) error {
	w := c.Root().Writer
	write := r.print
	if c.Bool("json") {
		write = func(w io.Writer) error { return printJSON(w, r) }
	}
	if err := write(w); err != nil {
		return err
	}
	return r.err()
}

// printJSON writes a value for machines.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
