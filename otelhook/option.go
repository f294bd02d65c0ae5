package otelhook

import (
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// Option configures New.
type Option interface {
	apply(config) config
}

// WithTracerProvider sets what makes the spans. The default is the global
// provider; that it is set after New does no harm. It panics if p is nil.
func WithTracerProvider(p trace.TracerProvider) Option {
	if p == nil {
		panic("otelhook: WithTracerProvider(nil): must be a provider, such as that of go.opentelemetry.io/otel/trace/noop")
	}
	return option(func(c config) config { c.tracers = p; return c })
}

// WithMeterProvider sets what makes the metrics. The default is the global
// provider; that it is set after New does no harm. It panics if p is nil.
func WithMeterProvider(p metric.MeterProvider) Option {
	if p == nil {
		panic("otelhook: WithMeterProvider(nil): must be a provider, such as that of go.opentelemetry.io/otel/metric/noop")
	}
	return option(func(c config) config { c.meters = p; return c })
}

// WithMetricKeys gives every metric but redlock.node.failures the attribute
// redlock.keys. By default none has it.
//
// Each set of keys then is a time series of its own in every metric, and with
// some backends for as long as the process lives. It is for programs that lock
// a few keys with fixed names, and never for keys that have an ID in them; the
// spans have the keys in any case.
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
