package otelhook

import (
	"runtime/debug"
	"slices"
)

const (
	module = "github.com/redis-kit/redlock"
	scope  = module + "/otelhook" // the name of the tracer and of the meter
)

// version is that of the module, as the go command has noted it in the binary.
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
