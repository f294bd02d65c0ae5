package redlock

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/redis-kit/redlock/internal/redisnode"
)

// Open returns a [Locker] with one node for each URL. It makes the clients, tuned as
// by [Tune], and [Locker.Close] closes them.
//
//	redis://[user:password@]host[:port][/db]   one server (valkey:// too)
//	rediss://…                                 the same over TLS (valkeys:// too)
//	unix:///path/to/redis.sock                 one server on this machine
//	redis://host:port?addr=host2:port2         one Cluster, by several of its servers
//	redis://host:port?cluster=true             one Cluster, by one endpoint
//	redis://sentinel:port?master_set=name      one Sentinel group
//
// The URLs are those of [rueidis.ParseURL]. Special characters in a user name or a password
// must be percent-encoded. Passwords that expire come from [WithCredentials]. Where a server
// or a proxy has only RESP2, ?protocol=2 asks for that, without HELLO: locks, queues and fences
// work over it too. For anything else, make clients with Tune and use [New].
//
// With rediss://, all servers of a Cluster or a Sentinel group are dialled with TLS, Sentinels
// included. A server's certificate must be for the host name by which it is dialled, which is
// also sent to it (SNI); a Cluster and Sentinels say the names of other servers. Three
// parameters name PEM files, which Open reads once:
//
//	tls_ca                 the authorities that are trusted, instead of the system's
//	tls_cert and tls_key   the client's certificate, with its chain, and its private key
//
// Anything that is not exactly such a URL is an error, before any name is resolved: a
// connection string of another library, a host that is neither a name nor an IP address,
// a parameter that rueidis would ignore. The error quotes nothing of it but the names of
// files.
//
// Open succeeds while nodes are down, even all of them. A node takes part within a second
// of answering again. If another server has taken over the address, it takes part once its
// predecessor reports being a replica. Open waits until each node has been dialled once, or
// until ctx's deadline. Dialling a silent node takes 1 s, unless its URL has a dial_timeout. Open fails
// if ctx is cancelled, or has already ended.
func Open(ctx context.Context, urls []string, opts ...Option) (*Locker, error) {
	config, err := configure(len(urls), opts)
	if err != nil {
		return nil, err
	}
	options, err := parse(urls)
	if err != nil {
		return nil, err
	}
	for i, option := range options {
		if config.guard.set && redisnode.IsCluster(option) {
			return nil, argumentError("urls[%d]: %w", i, errGuardedCluster)
		}
		if config.credentials != nil && (option.Username != "" || option.Password != "") {
			return nil, argumentError("urls[%d]: a user or a password besides WithCredentials: must be in one place", i)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, argumentError("open: nothing was tried: %w", errors.Join(ctxErrors(ctx)...))
	}
	backends := make([]*redisnode.Redis, len(options))
	voters := make([]voter, len(options))
	for i, option := range options {
		backends[i] = redisnode.Dial(option, config.credentials)
		voters[i] = voter{redisnode.Name(option.InitAddress), backends[i]}
	}
	l := newLocker(config, voters)
	for _, b := range backends {
		select {
		case <-b.Tried():
			continue
		case <-ctx.Done():
		}
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, errors.Join(argumentError("open: %w", errors.Join(ctxErrors(ctx)...)), l.Close())
		}
	}
	return l, nil
}

// Tune returns o with the settings that a [Locker] needs, for clients that are given
// to [New]. [Open] uses the same. Tune sets
//
//   - always-on pipelining over one connection, so that commands keep their order and
//     giving up a wait does not close the connection;
//   - no client-side cache, since a lock never reads from one.
//
// Where o leaves them at 0, it also sets
//
//   - timeouts that find a dead connection within seconds: 1 s to dial, 2 s for an
//     answer, TCP keep-alive probes every second;
//   - with Sentinel, the same for dialling the Sentinels, for which rueidis otherwise
//     waits without a limit, and a refresh of the topology every 5 s;
//   - with a Cluster, at most 5 redirections of a command;
//   - a DialCtxFn that dials as rueidis does, and remembers what a server says when it
//     refuses a connection, unless o has a DialFn; with AlwaysRESP2 it sends PING for HELLO;
//   - with AlwaysRESP2, no ClientSetInfo: proxies that speak RESP2 alone know no CLIENT.
//
// Leave ConnLifetime at 0. When a connection reaches its lifetime and the server does not
// answer within a second, rueidis sends the commands again. If the first copy has set the
// key, the answer to the second may name another owner, and the key stays for its ttl. No
// lifetime is needed to leave a server that has become a replica, see [New].
func Tune(o rueidis.ClientOption) rueidis.ClientOption {
	o.AlwaysPipelining = true
	o.DisableAutoPipelining = false
	o.PipelineMultiplex = -1
	o.DisableCache = true
	// Not with DisableTCPNoDelay: rueidis could not set that option on the wrapped socket.
	if o.DialCtxFn == nil && o.DialFn == nil && !o.DisableTCPNoDelay {
		o.DialCtxFn = redisnode.Attentive(nil, o.AlwaysRESP2)
	}
	if o.AlwaysRESP2 && o.ClientSetInfo == nil {
		o.ClientSetInfo = rueidis.DisableClientSetInfo
	}
	if o.Dialer.Timeout == 0 {
		o.Dialer.Timeout = time.Second
	}
	if o.Dialer.KeepAlive == 0 {
		o.Dialer.KeepAlive = time.Second
	}
	if o.ConnWriteTimeout == 0 {
		o.ConnWriteTimeout = 2 * time.Second
	}
	if o.Sentinel.Dialer.Timeout == 0 {
		o.Sentinel.Dialer.Timeout = o.Dialer.Timeout
	}
	if o.Sentinel.Dialer.KeepAlive == 0 {
		o.Sentinel.Dialer.KeepAlive = o.Dialer.KeepAlive
	}
	if o.Sentinel.MasterSet != "" && o.Sentinel.TopologyRefreshInterval == 0 {
		o.Sentinel.TopologyRefreshInterval = 5 * time.Second
	}
	if o.ClusterOption.MaxMovedRedirections == 0 {
		o.ClusterOption.MaxMovedRedirections = 5
	}
	return o
}

// parse reads the URLs. Its errors do not quote them: they may hold passwords.
func parse(urls []string) ([]rueidis.ClientOption, error) {
	options := make([]rueidis.ClientOption, len(urls))
	occupied := make(sites)
	for i, url := range urls {
		o, reason := redisnode.ParseURL(url)
		if reason != "" {
			return nil, argumentError("urls[%d]: %s", i, redisnode.WithForm(reason, "redis://[user:password@]host[:port][/db]"))
		}
		// The same Sentinels may watch several groups.
		if j, addr, ok := occupied.occupy(i, o.InitAddress, o.Sentinel.MasterSet); !ok {
			return nil, argumentError("urls[%d] and urls[%d] are the same node, %s: a node votes once", j, i, addr)
		}
		if o.DialCtxFn != nil { // a Unix socket
			o.DialCtxFn = redisnode.Attentive(o.DialCtxFn, o.AlwaysRESP2)
		}
		options[i] = Tune(o)
	}
	return options, nil
}

// sites maps addresses to nodes. It finds two nodes on the same server: different databases
// of one server fail together.
type sites map[string]int

// occupy notes the addresses of node i. If another node has one of them, occupy reports
// false, and returns that node and the address.
func (s sites) occupy(i int, addrs []string, group string) (before int, addr string, ok bool) {
	for _, addr := range addrs {
		where := site(addr) + " " + group
		if j, taken := s[where]; taken && j != i {
			return j, addr, false
		}
		s[where] = i
	}
	return 0, "", true
}

// site returns one spelling for all the ways to write an address. All addresses of this
// machine are the same site. So it takes two servers that listen on the same port, one only
// on ::1 and one only on 127.0.0.1, for one.
func site(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || strings.HasPrefix(addr, "/") {
		return addr // the path of a socket
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	switch host {
	case "", "127.0.0.1", "::1", "0.0.0.0", "::": // the unspecified one is dialled here too
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
