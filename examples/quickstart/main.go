// Quickstart shows what redlock does. In the directory examples, run it on three
// nodes inside this process:
//
//	go run ./quickstart
//
// or, without the parts in which nodes die, on real ones:
//
//	go run ./quickstart -nodes redis://r1:6379,redis://r2:6379,redis://r3:6379
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/examples/internal/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stdout io.Writer, args []string) error {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	list := flags.String("nodes", "", "real nodes as redis://host:port,redis://host:port,... (default: three in this process)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: -nodes takes one list, without spaces", flags.Arg(0))
	}

	var urls []string
	var nodes []*memory.Node
	if *list != "" {
		urls = strings.Split(*list, ",")
	} else {
		var err error
		if nodes, err = memory.Start(3); err != nil {
			return err
		}
		for _, n := range nodes {
			defer n.Stop()
			urls = append(urls, n.URL())
		}
	}
	locker, err := redlock.Open(ctx, urls)
	if err != nil {
		return err
	}
	defer locker.Close()

	s := &show{locker: locker, out: stdout, start: time.Now()}
	if err := s.typedResult(ctx); err != nil {
		return fmt.Errorf("typed result: %w", err)
	}
	if err := s.contention(ctx); err != nil {
		return fmt.Errorf("contention: %w", err)
	}
	if nodes == nil {
		s.sayf("3. and 4. Skipped: they stop nodes, and these are yours. Run without -nodes to see them.")
		return nil
	}
	if err := s.minorityDies(ctx, nodes[2]); err != nil {
		return fmt.Errorf("minority dies: %w", err)
	}
	if err := s.quorumDies(ctx, nodes[1]); err != nil {
		return fmt.Errorf("quorum dies: %w", err)
	}
	return nil
}

type show struct {
	locker *redlock.Locker
	start  time.Time

	mu  sync.Mutex // guards out
	out io.Writer
}

type Profile struct {
	Name   string
	Visits int
}

func (s *show) typedResult(ctx context.Context) error {
	s.sayf("1. A typed result: With runs a function under a lock and returns its value.")
	profile, err := redlock.With(ctx, s.locker, "user:123:profile", 30*time.Second,
		func(ctx context.Context) (Profile, error) {
			return Profile{Name: "Ada", Visits: 42}, nil
		})
	if err != nil {
		return err
	}
	s.sayf("   With returned %+v", profile)
	return nil
}

func (s *show) contention(ctx context.Context) error {
	s.sayf("2. Contention: two workers want one key, and try again every 20 to 40 ms.")
	retry := redlock.WithRetry(redlock.FixedRetry(20*time.Millisecond, 20*time.Millisecond, -1))
	var desk sync.Mutex // only to prove that the workers never overlap
	worker := func(name string) error {
		for job := 1; job <= 2; job++ {
			asked := time.Now()
			err := redlock.Do(ctx, s.locker, "desk", 5*time.Second, func(ctx context.Context) error {
				if !desk.TryLock() {
					return errors.New("two workers at one desk")
				}
				defer desk.Unlock()
				s.sayf("   %s begins job %d, after waiting %d ms", name, job, time.Since(asked).Milliseconds())
				defer s.sayf("   %s ends job %d", name, job)
				return pause(ctx, 300*time.Millisecond)
			}, retry)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := pause(ctx, 100*time.Millisecond); err != nil { // the other worker's turn
				return err
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	var ann, bob error
	wg.Go(func() { ann = worker("Ann") })
	wg.Go(func() { bob = worker("Bob") })
	wg.Wait()
	return errors.Join(ann, bob)
}

const ttl = 1500 * time.Millisecond

func (s *show) minorityDies(ctx context.Context, node *memory.Node) error {
	s.sayf("3. One node of three dies: With goes on, extending a lock of %v on the other two.", ttl)
	report, err := redlock.With(ctx, s.locker, "report", ttl, func(ctx context.Context) (string, error) {
		lock, _ := redlock.FromContext(ctx)
		s.sayf("   working, valid until %s", s.at(lock.Until()))
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return "", err
		}
		node.Stop()
		died := time.Now()
		s.sayf("   %s is dead", node.URL())
		for range 4 {
			if err := pause(ctx, ttl/2); err != nil {
				return "", err
			}
			s.sayf("   working, valid until %s", s.at(lock.Until()))
		}
		return fmt.Sprintf("written %.1f ttls after the node died", float64(time.Since(died))/float64(ttl)), nil
	})
	if err != nil {
		return err
	}
	s.sayf("   With returned %q", report)
	return nil
}

func (s *show) quorumDies(ctx context.Context, node *memory.Node) error {
	s.sayf("4. A second node dies: no quorum is left, and the function is told before its lock ends.")
	err := redlock.Do(ctx, s.locker, "ledger", ttl, func(ctx context.Context) error {
		lock, _ := redlock.FromContext(ctx)
		s.sayf("   working, valid until %s", s.at(lock.Until()))
		node.Stop()
		s.sayf("   %s is dead", node.URL())
		<-ctx.Done()
		ended, until, cause := time.Now(), lock.Until(), context.Cause(ctx)
		if !errors.Is(cause, redlock.ErrLost) {
			return cause
		}
		s.sayf("   the ctx ended at %s", s.at(ended))
		s.sayf("   the lock was valid until %s: %d ms were left to stop in", s.at(until), until.Sub(ended).Milliseconds())
		s.sayf("   the cause, an ErrLost: %v", cause)
		return errors.New("ledger half written")
	}, redlock.WithGrace(100*time.Millisecond))
	if !errors.Is(err, redlock.ErrLost) {
		return err
	}
	s.sayf("   Do returned: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	return nil
}

// sayf prints a line that begins with the time since the start.
func (s *show) sayf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%7s  %s\n", s.at(time.Now()), fmt.Sprintf(format, args...))
}

func (s *show) at(t time.Time) string { return fmt.Sprintf("%.3fs", t.Sub(s.start).Seconds()) }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
