package main

import (
	"context"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// memoryNode is a Redis server inside this process.
type memoryNode struct {
	url    string
	server *miniredis.Miniredis
	quit   context.CancelFunc
	aging  sync.WaitGroup
}

func startMemoryNode() (*memoryNode, error) {
	server, err := miniredis.Run()
	if err != nil {
		return nil, err
	}
	ctx, quit := context.WithCancel(context.Background())
	n := &memoryNode{url: "redis://" + server.Addr(), server: server, quit: quit}
	n.aging.Go(func() { n.age(ctx) })
	return n, nil
}

// age has keys expire: miniredis leaves the passing of time to its user. A
// step is what a key may lose too soon, less than a lock's drift allows for.
func (n *memoryNode) age(ctx context.Context) {
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

// stop kills the node: connections to it are refused. Stopping again does nothing.
func (n *memoryNode) stop() {
	n.quit()
	n.aging.Wait()
	n.server.Close()
}
