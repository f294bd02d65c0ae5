package main

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"

	"github.com/redis/rueidis"
)

// floor sends the same commands as a lock, without any of its promises. With several
// nodes it waits for all of them: otherwise calls that are still running would slow the
// next implementation.
type floor []rueidis.Client

func openFloor(_ context.Context, d deployment) (locker, error) {
	var f floor
	for _, addr := range d.Nodes {
		client, err := tuned(addr)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f = append(f, client)
	}
	return f, nil
}

// Cycle calls a single node directly, and each of several nodes on a goroutine.
func (f floor) Cycle(ctx context.Context, key string) error {
	token := rand.Text()
	set := func(c rueidis.Client) error {
		return c.Do(ctx, c.B().Set().Key(key).Value(token).Nx().PxMilliseconds(ttl.Milliseconds()).Build()).Error()
	}
	release := func(c rueidis.Client) error {
		deleted, err := compareAndDelete.Exec(ctx, c, []string{key}, []string{token}).AsInt64()
		if err == nil && deleted != 1 {
			err = errors.New("the key is not ours")
		}
		return err
	}
	if len(f) == 1 {
		if err := set(f[0]); err != nil {
			return err
		}
		return release(f[0])
	}
	if err := f.all(set); err != nil {
		return err
	}
	return f.all(release)
}

func (f floor) all(call func(rueidis.Client) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(f))
	for i, client := range f {
		wg.Go(func() { errs[i] = call(client) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f floor) Close() error {
	for _, client := range f {
		client.Close()
	}
	return nil
}

var compareAndDelete = rueidis.NewLuaScript(
	`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)
