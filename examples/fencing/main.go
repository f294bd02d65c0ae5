//go:build unix

// Fencing shows the one thing that no lock can prevent, the late write of a holder that
// was paused, and how a fence prevents it. In the directory examples, run it on three
// nodes inside this process:
//
//	go run ./fencing
//
// or on real ones:
//
//	go run ./fencing -nodes redis://r1:6379,redis://r2:6379,redis://r3:6379
//
// Ann and Bob are processes of their own, which pay into an account in SQLite. The
// program stops Ann by SIGSTOP between her read and her write, for longer than her lock
// lasts. Windows has no such signal, so it is for Unix.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/redis-kit/redlock/examples/internal/memory"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var err error
	if len(os.Args) > 1 && os.Args[1] == tellerArg {
		err = serve(ctx, os.Stdin, os.Stdout, os.Args[2:])
	} else {
		err = run(ctx, os.Stdout, os.Args[1:])
	}
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "fencing:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stdout io.Writer, args []string) error {
	flags := flag.NewFlagSet("fencing", flag.ContinueOnError)
	list := flags.String("nodes", "", "real nodes as redis://host:port,redis://host:port,... (default: three in this process)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: -nodes takes one list, without spaces", flags.Arg(0))
	}

	var urls []string
	if *list != "" {
		urls = strings.Split(*list, ",")
	} else {
		nodes, err := memory.Start(3)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			defer n.Stop()
			urls = append(urls, n.URL())
		}
	}
	dir, err := os.MkdirTemp("", "fencing")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "ledger.db")
	l, err := openLedger(ctx, path)
	if err != nil {
		return err
	}
	defer l.Close()

	s := &show{nodes: urls, ledger: l, path: path, out: stdout, start: time.Now()}
	s.sayf("1. Without a fence: the account trusts the lock alone.")
	if err := s.lateWrite(ctx, "plain", false); err != nil {
		return fmt.Errorf("without a fence: %w", err)
	}
	s.sayf("2. With a fence: the account refuses a fence below the highest that it has seen.")
	if err := s.lateWrite(ctx, "fenced", true); err != nil {
		return fmt.Errorf("with a fence: %w", err)
	}
	return nil
}

const (
	initial = 100
	annPays = 10
	bobPays = 50
)

type show struct {
	nodes  []string
	ledger *ledger
	path   string // of the ledger
	out    io.Writer
	start  time.Time
}

// lateWrite has Ann read the account, Bob pay into it while she is stopped, and Ann go
// on. It prints the final balance.
func (s *show) lateWrite(ctx context.Context, account string, fenced bool) error {
	if err := s.ledger.create(ctx, account, initial); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // kills the remaining tellers
	pay := teller{Name: "Ann", Account: account, Amount: annPays, Fenced: fenced, Slow: true, Ledger: s.path, Nodes: s.nodes}
	ann, err := start(ctx, pay)
	if err != nil {
		return err
	}
	defer ann.kill()
	if err := ann.read(s.tell); err != nil {
		return fmt.Errorf("the slow teller: %w", err)
	}
	if err := ann.signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop Ann: %w", err)
	}
	s.sayf("   Ann is stopped before she can write")

	pay.Name, pay.Amount, pay.Slow = "Bob", bobPays, false
	bob, err := start(ctx, pay)
	if err != nil {
		return err
	}
	defer bob.kill()
	if err := bob.end(s.tell); err != nil {
		return fmt.Errorf("the other teller: %w", err)
	}

	if err := ann.signal(syscall.SIGCONT); err != nil {
		return fmt.Errorf("continue Ann: %w", err)
	}
	s.sayf("   Ann goes on where she was stopped")
	if err := ann.end(s.tell); err != nil {
		return fmt.Errorf("the slow teller: %w", err)
	}

	const all = initial + annPays + bobPays
	balance, err := s.ledger.balance(ctx, account)
	switch {
	case err != nil:
		return err
	case balance == all:
		s.sayf("   The account has %d: no deposit is lost.", balance)
	default:
		s.sayf("   The account has %d, not %d: a deposit is lost.", balance, all)
	}
	return nil
}

func (s *show) tell(line string) { s.sayf("   %s", line) }

// sayf prints a line that begins with the time since the start.
func (s *show) sayf(format string, args ...any) {
	fmt.Fprintf(s.out, "%7.3fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}
