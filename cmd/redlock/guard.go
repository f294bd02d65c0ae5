package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"github.com/urfave/cli/v3"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/node"
	"github.com/redis-kit/redlock/internal/redisnode"
)

const guardVariable = "REDLOCK_GUARD"

func guardFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "guard-max-ttl", Usage: "use a restart guard, as all processes on these nodes must: the longest ttl of any lock; 0: none", DefaultText: "$" + guardVariable},
		&cli.DurationFlag{Name: "guard-skew", Usage: "of the restart guard: by how much clocks may jump or be wrong"},
	}
}

// restartGuard holds the settings of redlock.WithRestartGuard. The zero value disables it.
type restartGuard struct{ maxTTL, skew time.Duration }

// readRestartGuard reads the flags, or else the variable, and refuses nodes that a guard
// cannot be used with.
func readRestartGuard(c *cli.Command, nodes []deployment) (restartGuard, error) {
	g := restartGuard{c.Duration("guard-max-ttl"), c.Duration("guard-skew")}
	name := "-guard-max-ttl"
	if !c.IsSet("guard-max-ttl") {
		if c.IsSet("guard-skew") {
			return g, usagef("-guard-skew %v: needs -guard-max-ttl", g.skew)
		}
		name = guardVariable
		var err error
		if g, err = parseGuard(os.Getenv(guardVariable)); err != nil {
			return g, err
		}
	}
	switch {
	case g == restartGuard{}:
		return g, nil
	case g.maxTTL < redlock.MinTTL || g.maxTTL > redlock.MaxTTL:
		return g, usagef("%s: a longest ttl of %v: must be from %v to %v, or 0 for no restart guard", name, g.maxTTL, redlock.MinTTL, redlock.MaxTTL)
	case g.skew < 0 || g.skew > g.maxTTL:
		return g, usagef("%s: a skew of %v: must be from 0 to the longest ttl, %v", name, g.skew, g.maxTTL)
	}
	for i, d := range nodes {
		if redisnode.IsCluster(d.option) {
			return g, usagef("%s: node %d of -nodes is a Cluster: a restart guard needs servers or Sentinel groups", name, i+1)
		}
	}
	return g, nil
}

// parseGuard reads "maxTTL" or "maxTTL,skew"; empty is none.
func parseGuard(text string) (g restartGuard, err error) {
	if text == "" {
		return g, nil
	}
	longest, skew, two := strings.Cut(text, ",")
	if g.maxTTL, err = time.ParseDuration(strings.TrimSpace(longest)); err == nil && two {
		g.skew, err = time.ParseDuration(strings.TrimSpace(skew))
	}
	if err != nil {
		return g, usagef("%s=%q: must be the longest ttl and, behind a comma, the skew, such as 10m,1s", guardVariable, text)
	}
	return g, nil
}

func (g restartGuard) set() bool { return g.maxTTL > 0 }

// quarantine returns how long a node does not vote after a loss of data.
func (g restartGuard) quarantine() time.Duration { return g.maxTTL + 2*g.skew }

// serverRun names a run of a server, and its data: by the history that it is in, and the one before.
type serverRun struct{ id, history, before string }

// runOf reads INFO.
func runOf(info map[string]string) serverRun {
	return serverRun{info["run_id"], info["master_replid"], info["master_replid2"]}
}

// marker is the marker of restart guards on a server, as internal/redisnode/guard.lua writes it.
type marker struct {
	run, history string    // that it is for
	since        time.Time // when the quarantine began, by the server's clock; zero if it was ended by Locker.TrustNodes
}

// knows reports whether the marker is for the run. A healthy master has a new history, and
// none before it, when it has dropped its backlog.
func (m marker) knows(r serverRun) bool {
	return m.run == r.id && (m.history == r.history || r.before != "" && strings.Trim(r.before, "0") == "")
}

// readMarker reports false if there is no marker, or the user may not read it: a user who may
// not read it cannot use a restart guard.
func readMarker(ctx context.Context, client rueidis.Client) (m marker, ok bool) {
	text, err := client.Do(ctx, client.B().Get().Key(node.GuardKey).Build()).ToString()
	if err != nil {
		return m, false
	}
	its, since, _ := strings.Cut(text, " ")
	ms, err := strconv.ParseInt(since, 10, 64)
	if err != nil {
		return m, false
	}
	m.run, its, _ = strings.Cut(its, "-")
	m.history, _, _ = strings.Cut(its, "-")
	if ms > 0 {
		m.since = time.UnixMilli(ms).UTC()
	}
	return m, true
}

// left returns how much longer a server in run r does not vote. m is its marker, if that
// is known. now is by the server's clock.
func (g restartGuard) left(m marker, known bool, r serverRun, now time.Time) time.Duration {
	switch {
	case !known || !m.knows(r): // from the next acquire on
		return g.quarantine()
	case m.since.IsZero():
		return 0
	}
	return max(0, m.since.Add(g.quarantine()).Sub(now))
}

// ask asks a server how much longer it does not vote.
func (g restartGuard) ask(ctx context.Context, client rueidis.Client) (time.Duration, error) {
	info, err := client.Do(ctx, client.B().Info().Build()).ToString()
	if err != nil {
		return 0, err
	}
	clock, err := client.Do(ctx, client.B().Time().Build()).AsIntSlice()
	if err != nil || len(clock) != 2 {
		return 0, err
	}
	m, known := readMarker(ctx, client)
	return g.left(m, known, runOf(fieldsOf(info)), time.Unix(clock[0], clock[1]*1000)), nil
}
