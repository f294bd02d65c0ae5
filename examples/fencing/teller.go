//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/redis-kit/redlock"
)

const ttl = 1500 * time.Millisecond

// teller is a process that pays into an account once, under the lock on it.
type teller struct {
	Name, Account string
	Amount        int
	Fenced        bool
	Slow          bool   // waits for a line on stdin between the read and the write
	Ledger        string // path
	Nodes         []string

	out    io.Writer
	in     *bufio.Reader
	ledger *ledger
}

// tellerArg is the first argument of such a process. The second is the teller.
const tellerArg = "teller"

// serve is the main function of the process.
func serve(ctx context.Context, stdin io.Reader, stdout io.Writer, args []string) (err error) {
	if len(args) != 1 {
		return fmt.Errorf("%s: %d arguments: must be one", tellerArg, len(args))
	}
	t := teller{in: bufio.NewReader(stdin), out: stdout}
	if err := json.Unmarshal([]byte(args[0]), &t); err != nil {
		return fmt.Errorf("%s: %w", tellerArg, err)
	}
	if t.ledger, err = openLedger(ctx, t.Ledger); err != nil {
		return err
	}
	defer t.ledger.Close()
	locker, err := redlock.Open(ctx, t.Nodes, redlock.WithRetry(redlock.FixedRetry(100*time.Millisecond, 100*time.Millisecond, 50)))
	if err != nil {
		return err
	}
	defer locker.Close()

	for {
		err := t.pay(ctx, locker)
		if stale := (*staleError)(nil); errors.As(err, &stale) {
			t.sayf("is turned away, as %v, and tries again", stale)
			continue
		}
		if errors.Is(err, redlock.ErrLost) {
			t.sayf("learns it too late: %v", err)
			return nil
		}
		return err
	}
}

func (t *teller) pay(ctx context.Context, locker *redlock.Locker) error {
	var opts []redlock.LockOption
	if t.Fenced {
		opts = append(opts, redlock.WithFence())
	}
	return redlock.Do(ctx, locker, "account:"+t.Account, ttl, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		balance, err := t.read(ctx, lock.Fence())
		if err != nil {
			return err
		}
		if !lock.Valid() {
			return redlock.ErrLost
		}
		t.sayf("holds the lock%s and has read %d", t.fence(lock), balance)
		if t.Slow {
			t.Slow = false
			if _, err := t.in.ReadString('\n'); err != nil {
				return err
			}
		}
		// The lock was valid at the check. However soon the write follows, the process
		// may be stopped in between, and ctx does not end a write that is under way.
		if err := t.write(context.WithoutCancel(ctx), balance+t.Amount, lock.Fence()); err != nil {
			return err
		}
		t.sayf("pays in %d and has written %d", t.Amount, balance+t.Amount)
		return nil
	}, opts...)
}

func (t *teller) read(ctx context.Context, fence int64) (int, error) {
	if t.Fenced {
		return t.ledger.fencedBalance(ctx, t.Account, fence)
	}
	return t.ledger.balance(ctx, t.Account)
}

func (t *teller) write(ctx context.Context, balance int, fence int64) error {
	if t.Fenced {
		return t.ledger.setFencedBalance(ctx, t.Account, balance, fence)
	}
	return t.ledger.setBalance(ctx, t.Account, balance)
}

func (t *teller) fence(lock *redlock.Lock) string {
	if t.Fenced {
		return fmt.Sprintf(" with fence %d", lock.Fence())
	}
	return ""
}

func (t *teller) sayf(format string, args ...any) {
	fmt.Fprintln(t.out, t.Name, fmt.Sprintf(format, args...))
}
