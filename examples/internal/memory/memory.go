// Package memory runs Redis servers inside this process, for the examples.
package memory

import (
	"context"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// Node is one server.
type Node struct {
	url    string
	server *miniredis.Miniredis
	quit   context.CancelFunc
	aging  sync.WaitGroup
}

// Start starts n nodes, which the caller stops.
func Start(n int) ([]*Node, error) {
	var nodes []*Node
	for range n {
		server, err := miniredis.Run()
		if err != nil {
			for _, node := range nodes {
				node.Stop()
			}
			return nil, err
		}
		ctx, quit := context.WithCancel(context.Background())
		node := &Node{url: "redis://" + server.Addr(), server: server, quit: quit}
		node.aging.Go(func() { node.age(ctx) })
		nodes = append(nodes, node)
	}
	return nodes, nil
}

// URL returns the node's address, for redlock.Open. It is valid after Stop too.
func (n *Node) URL() string { return n.url }

// Stop kills the node: connections to it are refused. Stopping again does nothing.
func (n *Node) Stop() {
	n.quit()
	n.aging.Wait()
	n.server.Close()
}

// age makes keys expire: in miniredis time passes only when its user says so. A key may
// expire too early by a step, which is less than the drift that a lock allows for.
func (n *Node) age(ctx context.Context) {
	const step = time.Millisecond
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			n.server.FastForward(step)
		case <-ctx.Done():
			return
		}
	}
}
