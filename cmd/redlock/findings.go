package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// stepAhead is the smallest clock offset that is reported, in milliseconds.
const stepAhead = 500

// findings judges the servers of a given number of nodes.
func findings(servers []*server, nodes int, g restartGuard) []finding {
	var found []finding
	add := func(s severity, check, node, do, format string, args ...any) {
		found = append(found, finding{s, check, node, fmt.Sprintf(format, args...), do})
	}
	failed := make(map[string]bool)
	for _, s := range servers {
		if s.Error != "" {
			failed[s.Node] = true
			add(warning, "reachable", s.Address, "start it, or correct its URL: the address, user, password, TLS files, master_set",
				"it cannot vote: %s", s.Error)
		} else if !s.votes(g) {
			failed[s.Node] = true
		}
	}
	if need := nodes/2 + 1; nodes-len(failed) < need {
		add(danger, "quorum", "", "start the nodes that are down, and correct those that cannot vote",
			"%d of %d nodes can vote, %d needed: no lock can be taken", nodes-len(failed), nodes, need)
	}
	switch {
	case nodes == 1:
		add(warning, "nodes", "", "use three nodes, or five, that fail independently",
			"there is one node: no lock can be taken while it is down, and all locks are lost with its data")
	case nodes%2 == 0:
		add(warning, "nodes", "", "use an odd number",
			"%d nodes survive no more failures than %d do", nodes, nodes-1)
	}
	first := make(map[string]*server)
	for _, s := range servers {
		if before := first[s.RunID]; s.RunID != "" && before != nil && before.Node != s.Node {
			add(danger, "same-server", s.Address, "give each server once",
				"it is a server of two nodes, %s and %s, and votes twice", before.Node, s.Node)
		} else if before == nil {
			first[s.RunID] = s
		}
		if s.Error == "" {
			found = append(found, s.findings(g)...)
		}
	}
	return found
}

// findings judges one server that answers.
func (s *server) findings(g restartGuard) []finding {
	var found []finding
	add := func(severity severity, check, do, format string, args ...any) {
		found = append(found, finding{severity, check, s.Address, fmt.Sprintf(format, args...), do})
	}
	switch {
	case s.Mode == "sentinel":
		add(danger, "mode", "give it as redis://sentinel:port?master_set=NAME",
			"it is a Sentinel, which holds no keys")
		return found
	case s.Mode == "cluster" && s.kind == single:
		add(danger, "mode", "give the Cluster as one node, redis://host:port?cluster=true, or use servers of their own",
			"it is one server of a Cluster: it refuses the keys of all others")
	case s.kind == cluster:
		add(warning, "failover", "use independent servers as nodes",
			"a failover of the Cluster may lose the last writes, and with them locks")
	case s.kind == sentinelGroup:
		add(warning, "failover", "use independent servers as nodes",
			"a failover of the Sentinel group may lose the last writes, and with them locks")
	}
	if s.Role == "slave" {
		add(danger, "role", "give its master instead",
			"it is a replica: it refuses locks, and is no node besides its master")
	}
	if s.Version != "" && (s.Kind == "dragonfly" || s.Kind == "redis" && len(s.Version) > 1 && s.Version[1] == '.' && s.Version[0] < '6') {
		add(warning, "version", "use Redis 6.0 or later, Valkey or Redict",
			"redlock is not tested with %s %s", s.Kind, s.Version)
	}
	if policy := s.MaxMemoryPolicy; policy != "" && policy != "noeviction" {
		if s.MaxMemory == "0" {
			add(warning, "eviction", "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
				"maxmemory-policy is %s: as soon as a maxmemory is set, a server that is full drops locks, and the counters of fences, without notice", policy)
		} else {
			add(danger, "eviction", "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
				"maxmemory-policy is %s: a server that is full drops locks, and the counters of fences, without notice", policy)
		}
	}
	switch {
	case s.AppendOnly == "no":
		what := "it forgets its locks when it restarts (no appendonly file, no snapshots)"
		if s.persistence() == "snapshots" {
			what = "after a crash it has only the locks of its last snapshot (no appendonly file)"
		}
		if g.set() {
			add(warning, "persistence", "CONFIG SET appendonly yes and appendfsync always: then it still knows its locks",
				"%s: the restart guard keeps it from voting for %v then", what, g.quarantine())
		} else {
			add(danger, "persistence", "CONFIG SET appendonly yes and appendfsync always; or keep it down after a crash for longer than the longest ttl, and twice the clock skew; or use a restart guard in all processes, and say so by -guard-max-ttl",
				"%s: back at once, it votes a second time for a lock that is held", what)
		}
	case s.AppendOnly == "yes" && s.AppendFsync != "always" && s.AppendFsync != "":
		add(warning, "persistence", "CONFIG SET appendfsync always; or keep the machine down after a crash for longer than the longest ttl",
			"appendfsync is %s: a crash of its machine may lose the last locks", s.AppendFsync)
	}
	const wait = "wait: with WithRestartGuard it votes again after that time; use Locker.TrustNodes only if no lock can be held"
	switch {
	case s.Guard != nil && !s.Guard.Known:
		add(warning, "guard", wait,
			"it was restarted, failed over or lost its data since the last acquire under a restart guard: it is in quarantine from the next one on")
	case s.quarantine > 0 && s.Guard == nil:
		add(warning, "guard", wait,
			"it has no marker of a restart guard: it is in quarantine from the next acquire on, for %v", s.quarantine)
	case s.quarantine > 0:
		add(warning, "guard", wait, "it is in quarantine, and does not vote for another %v", s.quarantine.Round(time.Millisecond))
	case s.Guard != nil && !g.set():
		add(warning, "guard-unset", "give the tool the same restart guard, by -guard-max-ttl and -guard-skew or "+guardVariable,
			"processes here use a restart guard, and this tool was given none: redlock run would take a vote that does not count")
	}
	if c := s.Clock; c != nil && math.Abs(c.Offset)-c.Uncertainty > stepAhead {
		add(warning, "clock", "synchronise the clocks (NTP), by slewing and not by steps",
			"its clock is off by %.0f ms, ± %.0f ms: when the clock is corrected, keys expire that much too early or too late", c.Offset, c.Uncertainty)
	}
	found = append(found, s.permissionFindings()...)
	if s.Role != "slave" && (s.Mode != "cluster" || s.kind != single) { // which explain enough
		found = append(found, s.featureFindings()...)
	}
	if len(s.Unknown) > 0 {
		add(note, "unknown", "run doctor as a user that may run INFO, TIME and CONFIG GET, and not through a proxy",
			"some settings could not be read: %s", strings.Join(s.Unknown, "; "))
	}
	return found
}

func (s *server) permissionFindings() []finding {
	var found []finding
	for _, judge := range []struct {
		purpose, check, what string
		severity             severity
	}{
		{forLocks, "permissions", "no lock can be taken there", danger},
		{forQueues, "queue-permissions", "waiters poll instead of being granted the lock in turn", warning},
		{forFences, "fence-permissions", "locks with a fence (WithFence, -fence) are refused there", note},
		{forGuard, "guard-permissions", "locks under a restart guard (WithRestartGuard) are refused there", note},
	} {
		for _, missing := range []bool{true, false} {
			form, do := "the user may not run %s (%s): %s", "give it the permissions that SECURITY.md lists"
			if missing {
				form, do = "the server does not know %s (%s): %s", "use a server, or a plan of the service, that has it"
			}
			var commands []string
			said := ""
			for _, d := range s.Denied {
				if d.For == judge.purpose && d.Missing == missing && (s.keyed || !d.key) {
					commands, said = append(commands, d.what()), d.Said
				}
			}
			if len(commands) > 0 {
				found = append(found, finding{judge.severity, judge.check, s.Address,
					fmt.Sprintf(form, strings.Join(commands, ", "), said, judge.what), do})
			}
		}
	}
	for _, d := range s.Denied {
		if d.key && !s.keyed {
			return append(found, finding{note, "keys", s.Address,
				"whether the user may access the keys of locks was not checked: " + d.Said,
				"run redlock doctor KEY, with a key as your locks have it"})
		}
	}
	return found
}
