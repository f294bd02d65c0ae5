package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/internal/node"
)

func runCommand() *cli.Command {
	key := 1
	return leaf(&cli.Command{
		Name:      "run",
		Usage:     "run a command while the lock on KEY is held",
		UsageText: "redlock run [options] KEY -- COMMAND [ARGS...]",
		Description: `The command gets the lock's key in REDLOCK_KEY, its fencing token in REDLOCK_FENCE (with
-fence), what is on stdin, and the signals INT, TERM, HUP, QUIT, USR1 and USR2. The lock
is extended until the command ends, and then released. If it cannot be extended, the command's
process group gets SIGTERM, and SIGKILL before another process can hold the lock.

` + exitHelp,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "ttl", Value: 30 * time.Second, Usage: "how long the lock outlives a holder that died"},
			&cli.StringFlag{Name: "wait", Value: "10s", DefaultText: "10s", Usage: "how `long` to wait while another owner holds the lock; 0: try once; forever: until a signal"},
			&cli.DurationFlag{
				Name:        "grace",
				Usage:       "the time between SIGTERM and SIGKILL when the lock is lost; less than half of the ttl; 0: SIGKILL at once",
				DefaultText: "5s, or a quarter of the ttl if that is less",
			},
			&cli.StringFlag{
				Name:        "metadata",
				Usage:       "printable `text` that other processes read when they are refused the lock; no secrets; empty: none",
				DefaultText: "host=... pid=... started=...",
			},
			&cli.BoolFlag{Name: "fence", Usage: "give the lock a fencing token, a number that grows from run to run"},
		},
		StopOnNthArg: &key, // the rest belongs to the command
		Action: func(ctx context.Context, c *cli.Command) error {
			r, err := readRun(c)
			if err != nil {
				return err
			}
			return r.run(ctx)
		},
	})
}

// forever is a wait that only a signal ends.
const forever time.Duration = -1

func parseWait(text string) (time.Duration, error) {
	if text == "forever" {
		return forever, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, usagef("-wait %s: must be a duration such as 10s, or 0, or forever", text)
	}
	return d, nil
}

// run is one use of redlock run.
type run struct {
	urls    []string
	key     string
	program string
	args    []string // the name that the program is called by, and its arguments
	ttl     time.Duration
	wait    time.Duration
	grace   time.Duration
	fence   bool
	guard   restartGuard

	metadata string // that other processes read when they are refused the lock

	signals chan os.Signal
	// unextended is the error of the last extension; nil if that succeeded.
	unextended atomic.Pointer[error]
}

func readRun(c *cli.Command) (*run, error) {
	// The nodes come first: if a space splits the list of nodes, its second part is taken
	// for the key, and the errors about keys quote it. The errors about nodes quote
	// nothing.
	nodes, err := deployments(c)
	if err != nil {
		return nil, err
	}
	guard, err := readRestartGuard(c, nodes)
	if err != nil {
		return nil, err
	}
	wait, err := parseWait(c.String("wait"))
	if err != nil {
		return nil, err
	}
	r := &run{
		key:   c.Args().First(),
		args:  c.Args().Tail(),
		ttl:   c.Duration("ttl"),
		wait:  wait,
		grace: c.Duration("grace"),
		fence: c.Bool("fence"),
		guard: guard,
	}
	if r.metadata = c.String("metadata"); !c.IsSet("metadata") {
		r.metadata = describe(os.Getpid(), time.Now())
	}
	if !c.IsSet("grace") {
		r.grace = min(5*time.Second, r.ttl/4)
	}
	switch {
	case c.NArg() == 0 || r.key == "":
		return nil, usagef("run: no key: the form is redlock run [options] KEY -- COMMAND [ARGS...]")
	case c.NArg() == 1:
		return nil, usagef("run %q: no command: the form is redlock run [options] KEY -- COMMAND [ARGS...]", r.key)
	case strings.HasPrefix(r.args[0], "-"):
		return nil, usagef("run %q: the command is %q: options go before the key", r.key, r.args[0])
	case r.ttl < redlock.MinTTL || r.ttl > redlock.MaxTTL:
		return nil, usagef("-ttl %v: must be from %v to %v", r.ttl, redlock.MinTTL, redlock.MaxTTL)
	case r.grace < 0 || r.grace >= r.ttl/2:
		return nil, usagef("-grace %v: must be less than half of the ttl, %v", r.grace, r.ttl)
	case r.fence && r.ttl > fenceRetention:
		return nil, usagef("-ttl %v: must be at most %v with -fence", r.ttl, fenceRetention)
	case guard.set() && r.ttl > guard.maxTTL:
		return nil, usagef("-ttl %v: must be at most %v, the longest ttl of the restart guard", r.ttl, guard.maxTTL)
	}
	if err := node.Reserved(r.key); err != nil {
		return nil, usagef("run %q: %w", r.key, err)
	}
	if err := node.CheckMetadata(r.metadata); err != nil {
		return nil, usagef("-metadata: %w", err)
	}
	r.urls, err = urls(c)
	return r, err
}

// fenceRetention is how long the nodes remember the last fence of a key. It is the library's
// default, since all users of the key should have the same.
const fenceRetention = 24 * time.Hour

// describe is the metadata of a process, by default.
func describe(pid int, started time.Time) string {
	text := fmt.Sprintf("pid=%d started=%s", pid, started.UTC().Format(time.RFC3339))
	if host, err := os.Hostname(); err == nil && node.CheckMetadata("host="+host+" "+text) == nil {
		return "host=" + host + " " + text
	}
	return text
}

func (r *run) run(ctx context.Context) error {
	var err error
	if r.program, err = exec.LookPath(r.args[0]); err != nil {
		return r.notRun(err)
	}
	r.signals = catch()
	locker, lock, err := r.acquire(ctx)
	if locker != nil {
		defer locker.Close()
	}
	if err != nil {
		return err
	}
	defer r.release(lock)
	child, err := start(r.program, r.args, environment(lock))
	if err != nil {
		return r.notRun(err)
	}
	return (&watch{run: r, lock: lock, child: child}).wait()
}

// environment returns the environment of the command. It drops the fence of an outer run,
// which is not this lock's.
func environment(lock *redlock.Lock) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "REDLOCK_FENCE=") })
	env = append(env, "REDLOCK_KEY="+lock.Key())
	if fence := lock.Fence(); fence > 0 {
		env = append(env, "REDLOCK_FENCE="+strconv.FormatInt(fence, 10))
	}
	return env
}

// notRun returns the error of a command that cannot be run, with the exit code that shells use.
func (r *run) notRun(err error) error {
	code := exitNoExec
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNotFound
	}
	return exitError{code, fmt.Errorf("run %q: %w", r.key, err)}
}

// acquire waits for the lock, and for a signal that ends the wait.
func (r *run) acquire(ctx context.Context) (*redlock.Locker, *redlock.Lock, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var locker *redlock.Locker
	var lock *redlock.Lock
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		locker, err = redlock.Open(ctx, r.urls, r.options()...)
		if err != nil {
			err = usageError{err}
			return
		}
		if lock, err = r.acquireFrom(ctx, locker); err == nil && time.Until(lock.Until()) < r.ttl/2 {
			// A queue may have granted it with little validity left. The command must not begin with
			// less than its grace.
			err = lock.Extend(ctx, 0)
		}
	}()
	var ended os.Signal
	for {
		select {
		case s := <-r.signals:
			if ends(s) {
				ended = s
				cancel()
			}
			continue
		case <-done:
		}
		break
	}
	if lock != nil && (err != nil || ended != nil) {
		r.release(lock)
	}
	if ended == nil {
		return locker, lock, r.refusal(err)
	}
	return locker, nil, exitError{
		exitSignal + int(ended.(syscall.Signal)),
		fmt.Errorf("acquire %q: given up: signal: %v", r.key, ended),
	}
}

func (r *run) options() []redlock.Option {
	options := []redlock.Option{
		redlock.WithMiddleware(r.noteExtensions),
		redlock.WithMetadata(r.metadata),
		redlock.WithFenceRetention(fenceRetention),
	}
	if r.fence {
		options = append(options, redlock.WithFence())
	}
	if r.guard.set() {
		options = append(options, redlock.WithRestartGuard(r.guard.maxTTL, r.guard.skew))
	}
	return options
}

// refusal returns an error that names the holder if another owner holds the lock and its
// metadata is known, and err otherwise.
func (r *run) refusal(err error) error {
	var refused *redlock.QuorumError
	if !errors.Is(err, redlock.ErrNotAcquired) || !errors.As(err, &refused) || refused.Holder() == "" {
		return err
	}
	return exitError{exitHeld, fmt.Errorf("acquire %q: held by %s", r.key, refused.Holder())}
}

func (r *run) acquireFrom(ctx context.Context, locker *redlock.Locker) (*redlock.Lock, error) {
	if r.wait == 0 {
		return locker.TryAcquire(ctx, r.key, r.ttl)
	}
	if r.wait != forever {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.wait)
		defer cancel()
	}
	retry := redlock.FixedRetry(200*time.Millisecond, 100*time.Millisecond, -1)
	return locker.Acquire(ctx, r.key, r.ttl, redlock.WithRetry(retry))
}

// noteExtensions is a redlock.Middleware that keeps the error of the last extension: a lock
// that is about to end does not have it yet.
func (r *run) noteExtensions(next redlock.Handler) redlock.Handler {
	return func(ctx context.Context, op *redlock.Op) error {
		err := next(ctx, op)
		switch {
		case op.Kind != redlock.OpExtend:
		case err != nil:
			r.unextended.Store(&err)
		default:
			r.unextended.Store(nil)
		}
		return err
	}
}

// release releases the lock. A failure does not affect the command, which has ended: release
// reports it, and the keys expire. It does not report a loss, which was reported before.
func (r *run) release(lock *redlock.Lock) {
	held := lock.Valid()
	if err := lock.Release(context.Background()); err != nil && held {
		sayf(os.Stderr, "%v; the keys expire within %v", err, r.ttl)
	}
}
