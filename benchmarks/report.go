package main

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// section is the report of a scenario.
type section struct {
	Title, Text string
	Tables      []table
	Charts      []*chart
}

func (s *section) add(tables []table, charts []*chart) {
	s.Tables = append(s.Tables, tables...)
	s.Charts = append(s.Charts, charts...)
}

// chart returns the section's chart of that file name, which it makes if need be.
func (s *section) chart(file, title, unit string) *chart {
	for _, c := range s.Charts {
		if c.File == file {
			return c
		}
	}
	c := &chart{File: file, Title: title, Unit: unit}
	s.Charts = append(s.Charts, c)
	return c
}

// String returns the section as text, with the names of its charts.
func (s *section) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n%s\n", s.Title, s.Text)
	if len(s.Charts) > 0 {
		b.WriteString("\n")
	}
	for _, c := range s.Charts {
		fmt.Fprintf(&b, "Chart: %s (%s)\n", c.fileName(), c.Title)
	}
	for _, t := range s.Tables {
		b.WriteString("\n" + t.String())
	}
	return b.String()
}

// table has its rows in the order in which they were set.
type table struct {
	title   string
	columns []string
	*cells
}

type cells struct {
	rows  []string
	texts map[[2]string]string // by row and column
	notes []string
}

func newTable(title string, columns []string) table {
	return table{title, columns, &cells{texts: make(map[[2]string]string)}}
}

func (t table) set(row, column, text string) {
	if !slices.Contains(t.rows, row) {
		t.rows = append(t.rows, row)
	}
	t.texts[[2]string{row, column}] = text
}

func (t table) notef(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// String returns the table as text, with aligned columns.
func (t table) String() string {
	var b strings.Builder
	if t.title != "" {
		fmt.Fprintf(&b, "### %s\n\n", t.title)
	}
	lines := [][]string{append([]string{""}, t.columns...)}
	for _, row := range t.rows {
		line := []string{row}
		for _, column := range t.columns {
			line = append(line, t.texts[[2]string{row, column}])
		}
		lines = append(lines, line)
	}
	for _, line := range lines {
		text := ""
		for i, cell := range line {
			text += fmt.Sprintf("%-*s  ", width(lines, i), cell)
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	if len(t.notes) > 0 {
		b.WriteString("\n")
	}
	for _, note := range t.notes {
		fmt.Fprintf(&b, "- %s\n", note)
	}
	return b.String()
}

// width returns the width of a column, in characters.
func width(lines [][]string, column int) (most int) {
	for _, line := range lines {
		most = max(most, utf8.RuneCountInString(line[column]))
	}
	return most
}

func (s spread) String() string {
	return fmt.Sprintf("%s (%s–%s)", figure(s.median), figure(s.low), figure(s.high))
}

// figure returns a ratio with its significant digits.
func figure(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// duration returns a time in ns as text, with about three digits.
func duration(ns float64) string {
	switch {
	case math.IsNaN(ns):
		return "–"
	case ns < 1e6:
		return figure(ns/1e3) + " µs"
	case ns < 1e9:
		return figure(ns/1e6) + " ms"
	default:
		return figure(ns/1e9) + " s"
	}
}

// preamble describes the machine, the settings and the versions.
func preamble(s settings, server string) string {
	var b strings.Builder
	b.WriteString("# Results of `make bench-peers`\n\n")
	b.WriteString("Written by the program in benchmarks. docs/performance.md says how to read it.\n\n")
	fmt.Fprintf(&b, "- %s, %s, %s/%s, %d CPUs, servers on the same machine: %s\n",
		time.Now().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), server)
	fmt.Fprintf(&b, "- rounds: %d; time of the floor in each: %v; ttl of every lock unless said otherwise: %v\n", s.rounds, s.sample, ttl)
	fmt.Fprintf(&b, "- %s\n", strings.Join(versions(), ", "))
	return b.String()
}

func versions() []string {
	var found []string
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, dep := range info.Deps {
		switch dep.Path {
		case "github.com/go-redsync/redsync/v4", "github.com/bsm/redislock", "github.com/redis/rueidis", "github.com/redis/go-redis/v9":
			found = append(found, strings.TrimPrefix(dep.Path, "github.com/")+" "+dep.Version)
		}
	}
	return append(found, "rueidislock is part of rueidis")
}
