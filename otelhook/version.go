package otelhook

import (
	"runtime/debug"
	"slices"
)

const (
	module = "github.com/redis-kit/redlock"
	scope  = module + "/otelhook" // the name of the tracer and of the meter
)

// version is the version of the module that the go command has recorded in the binary.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(slices.Clone(info.Deps), &info.Main) {
			if m.Path == module {
				return m.Version
			}
		}
	}
	return "(unknown)"
}
