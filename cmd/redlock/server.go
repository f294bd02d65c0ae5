package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/redisnode"
)

// server is what doctor knows about one server; fields that it could not determine are empty.
// docs/cli.md documents the JSON.
type server struct {
	Node    string `json:"node"`            // as it was given
	Address string `json:"address"`         // of this server of the node
	Error   string `json:"error,omitempty"` // why it could not be asked

	Kind    string `json:"kind,omitempty"` // "redis", "valkey", "redict", "dragonfly"
	Version string `json:"version,omitempty"`
	Mode    string `json:"mode,omitempty"` // "standalone", "cluster", "sentinel"
	Role    string `json:"role,omitempty"` // "master", "slave"
	RunID   string `json:"run_id,omitempty"`

	Latency *latency `json:"latency,omitempty"`
	Clock   *clock   `json:"clock,omitempty"`

	AppendOnly      string  `json:"appendonly,omitempty"` // "yes", "no"
	AppendFsync     string  `json:"appendfsync,omitempty"`
	Save            *string `json:"save,omitempty"`
	MaxMemory       string  `json:"maxmemory,omitempty"`
	MaxMemoryPolicy string  `json:"maxmemory_policy,omitempty"`

	run   serverRun // as the marker of restart guards names it
	Guard *guard    `json:"guard,omitempty"` // of WithRestartGuard; none if no Locker has used one here

	quarantine time.Duration // how much longer it does not vote, by the guard that the tool was given

	Features []feature `json:"features,omitempty"` // what works there

	Denied  []denial `json:"denied,omitempty"`  // what the library needs and the user may not
	Unknown []string `json:"unknown,omitempty"` // why the tool could not determine something

	kind   group
	keyed  bool          // whether Denied is about a key that was given
	offset time.Duration // of the clock, from this machine's
	trip   time.Duration // of the answer that carried the clock
}

// latency is that of some PINGs, in milliseconds.
type latency struct {
	Min    float64 `json:"min_ms"`
	Median float64 `json:"median_ms"`
}

// clock is the lead of a server's clock over the median of all servers' clocks and this
// machine's, in milliseconds. It may be wrong by Uncertainty.
type clock struct {
	Offset      float64 `json:"offset_ms"`
	Uncertainty float64 `json:"uncertainty_ms"`
}

// guard is the marker that restart guards leave on a server.
type guard struct {
	Known bool       `json:"known"`           // it is for the server's present run
	Since *time.Time `json:"since,omitempty"` // when the quarantine began; none if it was ended by Locker.TrustNodes
}

// readGuard fills in the fields that the marker determines.
func (s *server) readGuard(ctx context.Context, client rueidis.Client, g restartGuard) {
	m, ok := readMarker(ctx, client)
	if s.run.id == "" {
		return
	}
	if ok {
		s.Guard = &guard{Known: m.knows(s.run)}
		if !m.since.IsZero() {
			s.Guard.Since = &m.since
		}
	}
	if g.set() {
		s.quarantine = g.left(m, ok, s.run, time.Now().Add(s.offset))
	}
}

// group is the make-up of a node.
type group int

const (
	single group = iota
	sentinelGroup
	cluster
)

func (d deployment) kind() group {
	switch {
	case d.option.Sentinel.MasterSet != "":
		return sentinelGroup
	case !d.option.ForceSingleClient:
		return cluster
	}
	return single
}

// servers asks the node's servers: of a Cluster its masters, of a Sentinel group its
// master.
func (d deployment) servers(ctx context.Context, key string, g restartGuard) []*server {
	client, err := d.dial()
	if err != nil {
		return []*server{{Node: d.name, Address: d.name, Error: err.Error(), kind: d.kind()}}
	}
	defer client.Close()
	var rehearsals map[string]redisnode.Rehearsal
	var rehearsing sync.WaitGroup
	rehearsing.Go(func() { rehearsals = d.rehearse(ctx, key) })
	members := client.Nodes()
	var servers []*server
	for _, addr := range slices.Sorted(maps.Keys(members)) {
		s := &server{Node: d.name, Address: addr, kind: d.kind(), keyed: key != ""}
		s.ask(ctx, members[addr], key, g)
		if s.kind == cluster && s.Role == "slave" {
			continue // it follows a master that is asked too
		}
		servers = append(servers, s)
	}
	rehearsing.Wait()
	for _, s := range servers {
		if s.Error == "" && s.Mode != "sentinel" {
			s.readFeatures(rehearsals[s.Address])
		}
	}
	return servers
}

// ask fills in the server's fields.
func (s *server) ask(ctx context.Context, client rueidis.Client, key string, g restartGuard) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := s.ping(ctx, client); err != nil {
		s.Error = err.Error()
		return
	}
	s.readClock(ctx, client)
	if info, ok := s.read(ctx, client, "INFO"); ok {
		s.readInfo(fieldsOf(info))
	}
	s.AppendFsync, _ = s.setting(ctx, client, "appendfsync")
	if save, ok := s.setting(ctx, client, "save"); ok {
		s.Save = &save
	}
	if s.Mode != "sentinel" {
		s.readGuard(ctx, client, g)
		s.Denied = denials(ctx, client, key, s.kind)
	}
}

// samples is how often a time is measured.
const samples = 5

// ping measures the latency. A user who may not run PING is answered just as fast.
func (s *server) ping(ctx context.Context, client rueidis.Client) error {
	var took []time.Duration
	for range samples {
		start := time.Now()
		err := client.Do(ctx, client.B().Ping().Build()).Error()
		if _, answered := rueidis.IsRedisErr(err); err != nil && !answered {
			return fmt.Errorf("no answer: %w", err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	s.Latency = &latency{milliseconds(took[0]), milliseconds(took[samples/2])}
	return nil
}

// readClock compares the clocks, by the sample with the shortest round trip.
func (s *server) readClock(ctx context.Context, client rueidis.Client) {
	for range samples {
		start := time.Now()
		reply, err := client.Do(ctx, client.B().Time().Build()).AsStrSlice()
		trip := time.Since(start)
		if err != nil || len(reply) != 2 {
			s.unknown("TIME", err)
			return
		}
		seconds, err1 := strconv.ParseInt(reply[0], 10, 64)
		micros, err2 := strconv.ParseInt(reply[1], 10, 64)
		if err1 != nil || err2 != nil || s.trip > 0 && trip >= s.trip {
			continue
		}
		s.trip = trip
		s.offset = time.Unix(seconds, micros*1000).Sub(start.Add(trip / 2))
		s.Clock = new(clock)
	}
}

// compareClocks sets how far each clock is from the median of all of them and this
// machine's.
func compareClocks(servers []*server) {
	all := []*server{{}} // this machine
	for _, s := range servers {
		if s.Clock != nil {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *server) int { return cmp.Compare(a.offset, b.offset) })
	median := all[len(all)/2]
	if other := all[(len(all)-1)/2]; other.offset.Abs() < median.offset.Abs() {
		median = other
	}
	for _, s := range servers {
		if s.Clock != nil {
			*s.Clock = clock{milliseconds(s.offset - median.offset), milliseconds(s.trip/2 + median.trip/2)}
		}
	}
}

func (s *server) readInfo(info map[string]string) {
	s.Kind, s.Version = "redis", info["redis_version"]
	for _, kind := range []string{"valkey", "redict", "dragonfly"} {
		if version := info[kind+"_version"]; version != "" {
			s.Kind, s.Version = kind, strings.TrimPrefix(version, "df-v")
		}
	}
	// Valkey says server_mode, unless it is to be compatible with Redis.
	s.Mode, s.Role, s.RunID = cmp.Or(info["server_mode"], info["redis_mode"]), info["role"], info["run_id"]
	if s.Mode == "" {
		s.unknown("INFO", errors.New("no server_mode and no redis_mode: it may be a Sentinel, or one server of a Cluster"))
	}
	s.run = runOf(info)
	s.MaxMemory, s.MaxMemoryPolicy = info["maxmemory"], info["maxmemory_policy"]
	switch info["aof_enabled"] {
	case "0":
		s.AppendOnly = "no"
	case "1":
		s.AppendOnly = "yes"
	}
}

// read runs a command without arguments.
func (s *server) read(ctx context.Context, client rueidis.Client, command string) (string, bool) {
	text, err := client.Do(ctx, client.B().Arbitrary(command).Build()).ToString()
	if err != nil {
		s.unknown(command, err)
	}
	return text, err == nil
}

// setting reads a setting. Hosted servers often have no CONFIG.
func (s *server) setting(ctx context.Context, client rueidis.Client, name string) (string, bool) {
	reply, err := client.Do(ctx, client.B().ConfigGet().Parameter(name).Build()).AsStrMap()
	if err != nil {
		s.unknown("CONFIG GET "+name, err)
		return "", false
	}
	value, ok := reply[name]
	return value, ok
}

func (s *server) unknown(what string, err error) {
	said, _, _ := strings.Cut(fmt.Sprint(err), ", with args beginning with:")
	s.Unknown = append(s.Unknown, what+": "+said)
}

// row is the server's row in the table.
func (s *server) row() []string {
	name := s.name()
	if s.Error != "" {
		return []string{name, "unreachable"}
	}
	row := []string{name, strings.TrimSpace(s.Kind + " " + s.Version), s.Mode, s.Role, "", "", s.persistence(), s.MaxMemoryPolicy}
	if s.Latency != nil {
		row[4] = fmt.Sprintf("%.2f, %.2f ms", s.Latency.Min, s.Latency.Median)
	}
	if s.Clock != nil {
		row[5] = fmt.Sprintf("%+.1f ± %.1f ms", s.Clock.Offset, s.Clock.Uncertainty)
	}
	for i, cell := range row {
		if cell == "" {
			row[i] = "?"
		}
	}
	return row
}

// name is the node and, if it has several, the server.
func (s *server) name() string {
	if s.Address != s.Node {
		return s.Node + " (" + s.Address + ")"
	}
	return s.Node
}

// persistence summarises what a server keeps when it crashes.
func (s *server) persistence() string {
	switch {
	case s.AppendOnly == "yes":
		return strings.TrimSpace("appendonly " + s.AppendFsync)
	case s.AppendOnly == "no" && s.Save != nil && *s.Save == "":
		return "none"
	case s.AppendOnly == "no":
		return "snapshots"
	}
	return ""
}

// fieldsOf are the fields of an INFO reply.
func fieldsOf(info string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
