package metrics

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// MaxSeries is how many series a Registry holds, besides those of collectors.
const MaxSeries = 10_000

// A Label is one dimension of a series.
type Label struct{ Name, Value string }

// A Type is the sort of a family.
type Type uint8

// The types.
const (
	CounterType Type = iota
	GaugeType
	HistogramType
)

func (t Type) String() string { return [...]string{"counter", "gauge", "histogram"}[t] }

// A Series is one line of a family: one of Counter, Gauge and Histogram is set,
// by its type, or none and then Number is the value.
type Series struct {
	Name, Help string
	Type       Type
	Labels     []Label // in the order in which they were given
	Counter    *Counter
	Gauge      *Gauge
	Histogram  *Histogram
	Number     float64
}

// Value returns the present value; of a histogram, how many observations.
func (s *Series) Value() float64 {
	switch {
	case s.Counter != nil:
		return float64(s.Counter.Value())
	case s.Gauge != nil:
		return float64(s.Gauge.Value())
	case s.Histogram != nil:
		return float64(s.Histogram.Count())
	}
	return s.Number
}

// A Collector has series of its own: figures that others keep, or series whose
// labels many families share. It calls f for each while it runs, those of a
// family one after the other, and no family may be another's.
type Collector interface{ Collect(f func(*Series)) }

// A Registry holds series by name and labels. The zero value is ready.
type Registry struct {
	overflowed Counter

	mu         sync.Mutex
	series     map[string]*Series // by name and labels
	types      map[string]Type    // by name
	collectors []Collector
}

// overflow labels the series that stands for all that found no room.
var overflow = []Label{{"overflow", "true"}}

// Counter returns the counter of this name and these labels, and makes it if it
// is new. A name used with two types is a bug and panics.
func (r *Registry) Counter(name, help string, labels ...Label) *Counter {
	return r.find(name, help, CounterType, labels, func(s *Series) { s.Counter = new(Counter) }).Counter
}

// Gauge is like Counter, for a gauge.
func (r *Registry) Gauge(name, help string, labels ...Label) *Gauge {
	return r.find(name, help, GaugeType, labels, func(s *Series) { s.Gauge = new(Gauge) }).Gauge
}

// Histogram is like Counter, for a histogram; the bounds of the first call with
// these labels count.
func (r *Registry) Histogram(name, help string, bounds *Bounds, labels ...Label) *Histogram {
	return r.find(name, help, HistogramType, labels, func(s *Series) { s.Histogram = NewHistogram(bounds) }).Histogram
}

// Collect adds a collector, whose series come after the Registry's own.
func (r *Registry) Collect(c Collector) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.collectors = append(r.collectors, c)
}

// Overflowed counts the series that found no room.
func (r *Registry) Overflowed() uint64 { return r.overflowed.Value() }

// Each calls f for every series: the Registry's own by name, then in the order of
// their labels, and then those of collectors. Series made meanwhile may be
// missing.
func (r *Registry) Each(f func(*Series)) {
	r.mu.Lock()
	keys := make([]string, 0, len(r.series))
	for k := range r.series {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	all := make([]*Series, len(keys))
	for i, k := range keys {
		all[i] = r.series[k]
	}
	collectors := slices.Clone(r.collectors)
	r.mu.Unlock()
	for _, s := range all {
		f(s)
	}
	for _, c := range collectors {
		c.Collect(f)
	}
}

func (r *Registry) find(name, help string, t Type, labels []Label, fill func(*Series)) *Series {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.series == nil {
		r.series, r.types = map[string]*Series{}, map[string]Type{}
	}
	if have, ok := r.types[name]; ok && have != t {
		panic(fmt.Sprintf("metric %s has two types", name))
	}
	k := key(name, labels)
	if s := r.series[k]; s != nil {
		return s
	}
	if len(r.series) >= MaxSeries {
		r.overflowed.Add(1)
		labels = overflow
		k = key(name, labels)
		if s := r.series[k]; s != nil {
			return s
		}
	}
	s := &Series{Name: name, Help: help, Type: t, Labels: slices.Clone(labels)}
	fill(s)
	r.series[k], r.types[name] = s, t
	return s
}

// key joins name and labels with bytes that sort before all others and occur in
// no label that came through UTF-8 text.
func key(name string, labels []Label) string {
	var b strings.Builder
	b.WriteString(name)
	for _, l := range labels {
		b.WriteByte(0)
		b.WriteString(l.Name)
		b.WriteByte(1)
		b.WriteString(l.Value)
	}
	return b.String()
}
