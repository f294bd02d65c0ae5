package certmagiclock_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/caddyserver/certmagic"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/adapters/certmagiclock"
)

func Example() {
	node, err := miniredis.Run() // in memory; three real ones outside of an example
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	ctx := context.Background()
	locker, err := redlock.Open(ctx, []string{"redis://" + node.Addr()}, redlock.WithKeyPrefix("certmagic:"))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	files := &certmagic.FileStorage{Path: os.TempDir()} // or an object store
	storage := certmagiclock.New(files, locker, 30*time.Second)
	certmagic.Default.Storage = storage // certmagic.HTTPS and the others use it from now on

	fmt.Println(storage.Lock(ctx, "issue_cert_example.com"))
	fmt.Println(node.Keys())
	fmt.Println(storage.Unlock(ctx, "issue_cert_example.com"))
	// Output:
	// <nil>
	// [certmagic:issue_cert_example.com]
	// <nil>
}
