package metrics

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// MaxSeries is how many series a Registry holds.
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

// A Series is one line of a family: one of Counter, Gauge and Histogram is set,
// by its type.
type Series struct {
	Name, Help string
	Type       Type
	Labels     []Label // in the order in which they were given
	Counter    *Counter
	Gauge      *Gauge
	Histogram  *Histogram
}

// A Registry holds series by name and labels. The zero value is ready.
type Registry struct {
	overflowed Counter

	mu     sync.Mutex
	series map[string]*Series // by name and labels
	types  map[string]Type    // by name
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

// Histogram is like Counter, for a histogram. The bounds must ascend; those of
// the first call with these labels count.
func (r *Registry) Histogram(name, help string, bounds []float64, labels ...Label) *Histogram {
	if !slices.IsSorted(bounds) {
		panic(fmt.Sprintf("histogram %s: bounds do not ascend", name))
	}
	return r.find(name, help, HistogramType, labels, func(s *Series) { s.Histogram = newHistogram(bounds) }).Histogram
}

// Overflowed counts the series that found no room.
func (r *Registry) Overflowed() uint64 { return r.overflowed.Value() }

// Each calls f for every series, by name, then in the order of their labels.
// Series made meanwhile may be missing.
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
	r.mu.Unlock()
	for _, s := range all {
		f(s)
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
