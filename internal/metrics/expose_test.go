package metrics

import (
	"errors"
	"strings"
	"testing"
)

// collected is a Collector of fixed series.
type collected []Series

func (c collected) Collect(f func(*Series)) {
	for i := range c {
		f(&c[i])
	}
}

func filled() *Registry {
	r := new(Registry)
	r.Counter("b_total", "How \"many\".\nTwo lines.", Label{"x", `a"b\c` + "\n\xff"}, Label{"y", ""}).Add(3)
	r.Counter("b_total", "", Label{"x", "z"}).Add(1)
	r.Gauge("a", "A gauge.").Set(-2)
	h := r.Histogram("h", "A histogram.", NewBounds(10, 0.5, 1000000), Label{"x", "1"})
	h.Observe(5)
	h.Observe(6)
	h.Observe(1e9)
	r.Collect(collected{{Name: "z_total", Type: CounterType, Number: 1e17}, {Name: "zz", Help: "Half.", Type: GaugeType, Number: 0.5}})
	return r
}

func TestExpose(t *testing.T) {
	want := `# HELP a A gauge.
# TYPE a gauge
a -2
# HELP b_total How "many".\nTwo lines.
# TYPE b_total counter
b_total{x="a\"b\\c\n�",y=""} 3
b_total{x="z"} 1
# HELP h A histogram.
# TYPE h histogram
h_bucket{x="1",le="0.5"} 1
h_bucket{x="1",le="1000000"} 2
h_bucket{x="1",le="+Inf"} 3
h_sum{x="1"} 1.000000011e+08
h_count{x="1"} 3
# TYPE z_total counter
z_total 1e+17
# HELP zz Half.
# TYPE zz gauge
zz 0.5
`
	var got strings.Builder
	if err := filled().Expose(&got, Prometheus); err != nil || got.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got.String(), want)
	}
	want = strings.NewReplacer("HELP b_total", "HELP b", "TYPE b_total", "TYPE b", "TYPE z_total", "TYPE z", `"many"`, `\"many\"`).Replace(want) + "# EOF\n"
	got.Reset()
	if err := filled().Expose(&got, OpenMetrics); err != nil || got.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got.String(), want)
	}
}

func TestAccepted(t *testing.T) {
	for accept, want := range map[string]Format{
		"": Prometheus, "*/*": Prometheus, "text/plain;version=0.0.4": Prometheus,
		"application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5": OpenMetrics,
	} {
		if got := Accepted(accept); got != want {
			t.Errorf("%q: got %s", accept, got.ContentType())
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

var errFull = errors.New("full")

func TestExposeTellsOfErrors(t *testing.T) {
	if err := filled().Expose(full{}, Prometheus); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}
