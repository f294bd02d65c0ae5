package otelhook

import (
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Option configures [New].
type Option interface {
	apply(config) config
}

// WithTracerProvider sets the provider of the spans. The default is the global one, which
// may be set before or after [New]. WithTracerProvider panics if p is nil.
func WithTracerProvider(p trace.TracerProvider) Option {
	if p == nil {
		panic("otelhook: WithTracerProvider(nil): must be a provider, such as that of go.opentelemetry.io/otel/trace/noop")
	}
	return option(func(c config) config { c.tracers = p; return c })
}

// WithMeterProvider sets the provider of the metrics. The default is the global one, which
// may be set before or after [New]. WithMeterProvider panics if p is nil.
func WithMeterProvider(p metric.MeterProvider) Option {
	if p == nil {
		panic("otelhook: WithMeterProvider(nil): must be a provider, such as that of go.opentelemetry.io/otel/metric/noop")
	}
	return option(func(c config) config { c.meters = p; return c })
}

// WithMetricKeys adds the attribute redlock.keys to every metric except
// redlock.node.failures. By default no metric has it.
//
// Each set of keys then becomes a time series of its own in every metric. Some backends
// keep it for as long as the process lives. So use it only in programs that lock a few
// keys with fixed names, never with keys that contain an ID. Spans always have the keys.
func WithMetricKeys() Option {
	return option(func(c config) config { c.metricKeys = true; return c })
}

type config struct {
	tracers    trace.TracerProvider
	meters     metric.MeterProvider
	metricKeys bool
}

type option func(config) config

func (o option) apply(c config) config { return o(c) }
