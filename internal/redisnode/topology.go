package redisnode

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	// A Cluster is asked for its slots when its last answer is older than topologyAge, or than
	// topologyPause if a connection has failed since.
	topologyAge   = 10 * time.Second
	topologyPause = 200 * time.Millisecond
	// topologyListening is like topologyAge, while there are subscriptions: not every server
	// tells when a slot has moved.
	topologyListening = time.Second
	// topologyWait is the timeout of one server.
	topologyWait = time.Second
)

// topology knows which server of a Cluster has which slot. It serves to keep the commands for
// different servers apart, and to subscribe where a channel is. rueidis sends each command to
// the right server by a topology of its own that it does not expose.
type topology struct {
	slots     atomic.Pointer[slots]
	listeners atomic.Int32 // number of subscriptions
	shards    *shards      // the subscriptions, which follow the slots
	ctx       context.Context
	stop      context.CancelFunc

	members map[string]*member // by name; used only by the goroutine that asks

	mu      sync.Mutex    // guards what follows
	asked   time.Time     // when the Cluster was last asked
	asking  chan struct{} // closed when the goroutine that asks has ended; nil if there is none
	closed  bool
	running sync.WaitGroup
}

// slots is the server of each slot; nil where it is not known.
type slots [slotCount]*member

// member is one server of a Cluster.
type member struct {
	name string
	addr string // as the client names the server; "" if the Cluster does not know it
	able ability
}

// isOfCluster is the error of a server that has sent its client to another one.
func (s *Redis) isOfCluster(err error) error {
	switch {
	case s.topology != nil, s.sentinels: // its client follows; here it has given up
		return err
	case s.stop == nil:
		return fmt.Errorf("%w: this is a Cluster: make its client with rueidis in cluster mode, without ForceSingleClient", err)
	}
	return fmt.Errorf("%w: this is a Cluster: add ?cluster=true to its URL", err)
}

func newTopology() *topology {
	t := new(topology)
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.shards = &shards{topology: t, open: make(map[string]*shard)}
	return t
}

// server names the server that has a slot. As long as that is not known each slot has a name
// of its own, so that no command waits for those of another slot.
func (t *topology) server(slot uint16) string {
	if known := t.slots.Load(); known != nil && known[slot] != nil {
		return known[slot].name
	}
	return "slot " + strconv.Itoa(int(slot))
}

// address returns the address of the server that has a slot; "" if it is not known.
func (t *topology) address(slot uint16) string {
	if known := t.slots.Load(); known != nil && known[slot] != nil {
		return known[slot].addr
	}
	return ""
}

// ability returns what the server that has a slot has shown; nil if that server is not known.
func (t *topology) ability(slot uint16) *ability {
	if known := t.slots.Load(); known != nil && known[slot] != nil {
		return &known[slot].able
	}
	return nil
}

// samples returns a key of each server that has slots, or some key if none is known.
func (t *topology) samples() []string {
	known := t.slots.Load()
	if known == nil {
		return []string{"redlock"}
	}
	missing := make(map[*member]bool)
	for _, server := range known {
		if server != nil {
			missing[server] = true
		}
	}
	var keys []string
	for i := 0; len(missing) > 0; i++ { // every slot has a key among the first 167 976
		key := "redlock:" + strconv.Itoa(i)
		if server := known[slot(key)]; missing[server] {
			delete(missing, server)
			keys = append(keys, key)
		}
	}
	return keys
}

// refresh asks the Cluster in the background, if that is due.
func (t *topology) refresh(client rueidis.Client, failed bool) {
	age := topologyAge
	switch {
	case failed || t.slots.Load() == nil:
		age = topologyPause
	case t.listeners.Load() > 0:
		age = topologyListening
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.asking != nil || time.Since(t.asked) < age {
		return
	}
	asking := make(chan struct{})
	t.asking, t.asked = asking, time.Now()
	t.running.Go(func() {
		defer close(asking)
		t.load(client)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.asking = nil
	})
}

// ask asks the Cluster, unless it has just been asked, and waits for the answer.
func (t *topology) ask(ctx context.Context, client rueidis.Client) {
	t.refresh(client, true)
	t.mu.Lock()
	asking := t.asking
	t.mu.Unlock()
	if asking == nil {
		return
	}
	select {
	case <-asking:
	case <-ctx.Done():
	}
}

// load asks one server after the other for its slots, until one answers.
func (t *topology) load(client rueidis.Client) {
	for addr, server := range client.Nodes() {
		// With a deadline rueidis may close a connection, see Node.ctx.
		ctx, cancel := context.WithCancel(t.ctx)
		timer := time.AfterFunc(topologyWait, cancel)
		reply, err := server.Do(ctx, server.B().ClusterSlots().Build()).ToArray()
		timer.Stop()
		cancel()
		if known := t.readSlots(reply, addr); err == nil && known != nil {
			t.slots.Store(known)
			t.shards.follow()
			return
		}
	}
}

// readSlots reads the reply to CLUSTER SLOTS: ranges, each with its first and its last slot, and
// its servers, the master first, with host, port and id. It returns nil for any other reply.
// asked is the address of the server that has replied.
func (t *topology) readSlots(reply []rueidis.RedisMessage, asked string) *slots {
	known, members := new(slots), make(map[string]*member)
	for _, message := range reply {
		row, err := message.ToArray()
		if err != nil || len(row) < 3 {
			continue
		}
		first, err1 := row[0].AsInt64()
		last, err2 := row[1].AsInt64()
		master, err3 := row[2].ToArray()
		if err1 != nil || err2 != nil || err3 != nil || len(master) < 3 || first < 0 || last >= slotCount {
			continue
		}
		id, err := master[2].ToString()
		if err != nil {
			continue
		}
		if members[id] == nil {
			addr := addressOf(master, asked)
			if members[id] = t.members[id]; members[id] == nil || members[id].addr != addr {
				members[id] = &member{name: id, addr: addr} // a member does not change: it is read without a lock
			}
		}
		for slot := first; slot <= last; slot++ {
			known[slot] = members[id]
		}
	}
	if len(members) == 0 {
		return nil
	}
	t.members = members
	return known
}

// addressOf returns a server's address as rueidis forms it: a server that does not know its host
// has that of the server that was asked. It is "" if the Cluster does not know the host.
func addressOf(server []rueidis.RedisMessage, asked string) string {
	host, _ := server[0].ToString() // nil counts as empty
	port, err := server[1].AsInt64()
	switch {
	case err != nil, host == "?":
		return ""
	case host == "":
		host, _, _ = net.SplitHostPort(asked)
	}
	return net.JoinHostPort(host, strconv.FormatInt(port, 10))
}

// close ends a refresh that is under way, and the connections that listen.
func (t *topology) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.stop()
	t.running.Wait()
	t.shards.close()
}
