package fencemodel

import (
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var wide = flag.Bool("fencemodel.wide", false, "also check the larger worlds")

func TestEachVariantBreaksExactlyWhatTheTableSays(t *testing.T) {
	variants := Variants()
	if *wide {
		variants = append(variants, Wide()...)
	}
	for _, v := range variants {
		t.Run(v.Name, func(t *testing.T) {
			found := make(map[Property][]string)
			for _, m := range v.Models {
				begin := time.Now()
				var enough []Property
				if v.Enough {
					enough = v.Breaks
				}
				result := m.Explore(enough...)
				t.Logf("%d nodes, %d attempts: %d states, %d steps, %v", m.Nodes, len(m.Attempts), result.States, result.Steps, time.Since(begin).Round(time.Millisecond))
				for property, run := range result.Broken {
					if len(found[property]) == 0 || len(run) < len(found[property]) {
						found[property] = run
					}
				}
			}
			for _, property := range Properties {
				run, broken := found[property]
				text := strings.Join(run, "\n  ")
				if broken {
					t.Logf("%v is broken:\n  %s", property, text)
				}
				if v.Enough && !slices.Contains(v.Breaks, property) {
					continue
				}
				require.Equal(t, slices.Contains(v.Breaks, property), broken, "%v: %s", property, text)
			}
		})
	}
}
