package otelhook_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/redis-kit/redlock"
	"github.com/redis-kit/redlock/otelhook"
)

func ExampleNew() {
	server, err := miniredis.Run() // in place of r1, r2 and r3
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	// A program has these from where it sets up its SDK. Without the options,
	// New takes the providers that it has made global.
	spans, metrics := tracetest.NewInMemoryExporter(), sdkmetric.NewManualReader()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(metrics))

	ctx := context.Background()
	locker, err := redlock.Open(ctx, []string{"redis://" + server.Addr()}, redlock.WithMiddleware(
		otelhook.New(otelhook.WithTracerProvider(tp), otelhook.WithMeterProvider(mp))))
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()

	err = redlock.Do(ctx, locker, "invoices", 30*time.Second, func(ctx context.Context) error {
		_, span := tp.Tracer("program").Start(ctx, "send invoices") // under redlock.hold
		defer span.End()
		var now metricdata.ResourceMetrics
		if err := metrics.Collect(ctx, &now); err != nil {
			return err
		}
		for _, m := range now.ScopeMetrics[0].Metrics {
			if held, ok := m.Data.(metricdata.Sum[int64]); ok {
				fmt.Println(m.Name, held.DataPoints[0].Value)
			}
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, span := range spans.GetSpans() {
		fmt.Println(span.Name)
	}
	// Output:
	// redlock.held 1
	// redlock.acquire
	// send invoices
	// redlock.hold
	// redlock.release
}

func ExampleWithMetricKeys() {
	server, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	reader := sdkmetric.NewManualReader()
	ctx := context.Background()
	locker, err := redlock.Open(ctx, []string{"redis://" + server.Addr()}, redlock.WithMiddleware(otelhook.New(
		otelhook.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))),
		otelhook.WithMetricKeys()))) // this program only locks "invoices" and "reports"
	if err != nil {
		log.Fatal(err)
	}
	defer locker.Close()
	if err := redlock.Do(ctx, locker, "invoices", 30*time.Second, func(context.Context) error { return nil }); err != nil {
		log.Fatal(err)
	}

	var all metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if attempts, ok := m.Data.(metricdata.Histogram[int64]); ok {
			keys, _ := attempts.DataPoints[0].Attributes.Value("redlock.keys")
			fmt.Println(m.Name, keys.AsStringSlice())
		}
	}
	// Output: redlock.acquire.attempts [invoices]
}
