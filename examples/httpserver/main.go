// Httpserver is a small bank that serves its requests under locks. In the directory
// examples, run it on three nodes inside this process:
//
//	go run ./httpserver
//
// or on real ones:
//
//	go run ./httpserver -nodes redis://r1:6379,redis://r2:6379,redis://r3:6379
//
// requests.txt has requests and their answers. It writes log lines, spans and metrics
// to stdout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/examples/internal/memory"
	"github.com/redis-kit/redlock/middleware"
	"github.com/redis-kit/redlock/otelhook"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "httpserver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, stdout io.Writer, args []string) (err error) {
	flags := flag.NewFlagSet("httpserver", flag.ContinueOnError)
	addr := flags.String("addr", "localhost:8080", "where to listen")
	list := flags.String("nodes", "", "real nodes as redis://host:port,redis://host:port,... (default: three in this process)")
	patience := flags.Duration("patience", 2*time.Second, "how long a deposit waits for its turn")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: -nodes takes one list, without spaces", flags.Arg(0))
	}
	if *patience <= 0 {
		return fmt.Errorf("-patience %v: must be above 0", *patience)
	}

	var urls []string
	var nodes []*memory.Node
	if *list != "" {
		urls = strings.Split(*list, ",")
	} else {
		if nodes, err = memory.Start(3); err != nil {
			return err
		}
		for _, n := range nodes {
			defer n.Stop()
			urls = append(urls, n.URL())
		}
	}

	logger := slog.New(slog.NewTextHandler(stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))
	telemetry, err := newTelemetry(stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, telemetry.close()) }()

	// The hook is outside, so that the log's ctx has its spans.
	locker, err := redlock.Open(ctx, urls, redlock.WithMiddleware(
		otelhook.New(otelhook.WithTracerProvider(telemetry.tracers), otelhook.WithMeterProvider(telemetry.meters)),
		middleware.Log(logger)))
	if err != nil {
		return err
	}
	defer locker.Close()

	b := &bank{log: logger, locker: locker, patience: *patience, nodes: nodes}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           telemetry.spans(b.handler()),
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelError),
	}
	logger.Info("listening", "url", "http://"+listener.Addr().String())
	return serve(ctx, server, listener)
}

// serve serves until ctx ends, and then lets running requests finish: the Locker must be
// closed after them.
func serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		stopped <- server.Shutdown(ctx)
	})
	err := server.Serve(listener)
	if stop() { // the server failed before ctx ended
		return err
	}
	return <-stopped
}
