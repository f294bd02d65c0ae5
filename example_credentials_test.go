package redlock_test

import (
	"context"
	"log"

	"github.com/redis-kit/redlock"
)

// tokens gives out the passwords of an IAM user, and keeps each until it is about to expire.
var tokens interface {
	Token(ctx context.Context) (string, error)
}

// The endpoint of a hosted Cluster, whose passwords expire.
func ExampleWithCredentials() {
	locker, err := redlock.Open(context.Background(), []string{"rediss://locks.example.com:6379?cluster=true"},
		redlock.WithCredentials(func(ctx context.Context, addr string) (user, password string, err error) {
			password, err = tokens.Token(ctx)
			return "iam-user", password, err
		}))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()
}
