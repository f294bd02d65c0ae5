package fencemodel

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var wide = flag.Bool("fencemodel.wide", false, "also check the larger worlds, for minutes")

func TestEachVariantBreaksExactlyWhatItIsKnownToBreak(t *testing.T) {
	variants := Variants()
	if *wide {
		variants = append(variants, Wide()...)
	}
	for _, v := range variants {
		t.Run(v.Name, func(t *testing.T) {
			found := explore(t, v)
			for _, property := range Properties {
				run, broken := found[property]
				require.Equal(t, slices.Contains(v.Breaks, property), broken, "%v: %s", property, run)
			}
		})
	}
}

func TestMistakesAreFound(t *testing.T) {
	for _, v := range Mistakes() {
		t.Run(v.Name, func(t *testing.T) {
			found := explore(t, v, v.Breaks...)
			for _, property := range v.Breaks {
				require.Contains(t, found, property)
			}
		})
	}
}

// explore searches all models of a variant, and returns the shortest runs that break
// properties.
func explore(t *testing.T, v Variant, enough ...Property) map[Property]string {
	t.Helper()
	found := make(map[Property]string)
	lengths := make(map[Property]int)
	for _, m := range v.Models {
		begin := time.Now()
		result := m.Explore(enough...)
		t.Logf("%d nodes, %d attempts: %d states, %d steps, %v", m.Nodes, len(m.Attempts), result.States, result.Steps, time.Since(begin).Round(time.Millisecond))
		if len(enough) == 0 && len(result.Broken) < len(Properties) {
			require.Equal(t, len(m.Attempts), result.Completed, "no run in which all attempts complete")
		}
		for property, run := range result.Broken {
			if lengths[property] == 0 || len(run) < lengths[property] {
				lengths[property], found[property] = len(run), strings.Join(run, "\n  ")
			}
		}
	}
	for _, property := range Properties {
		if run, broken := found[property]; broken {
			t.Logf("%v is broken:\n  %s", property, run)
		}
	}
	return found
}
