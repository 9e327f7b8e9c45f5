package load

import (
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// schema is the version of a result's JSON. It is raised when a field changes its
// meaning or goes.
const schema = 1

// A Result is what came of one measurement. Durations are in nanoseconds.
type Result struct {
	Schema  int           `json:"schema"`
	Version string        `json:"version,omitempty"` // of the tool
	Began   time.Time     `json:"began"`
	Machine string        `json:"machine"`
	Spec    Spec          `json:"spec"`
	Elapsed time.Duration `json:"elapsed"` // of the part that counts

	Sent     int64            `json:"sent"` // requests that count
	Done     int64            `json:"done"` // with the answer that was expected
	Failed   int64            `json:"failed"`
	Failures map[string]int64 `json:"failures,omitempty"`
	Statuses map[int]int64    `json:"statuses,omitempty"`
	Why      []string         `json:"why,omitempty"` // the first few failures in words
	Bytes    int64            `json:"bytes"`         // of answers' bodies
	Waited   int64            `json:"waited"`        // that found every connection busy
	Lost     int64            `json:"lost"`          // connections that ended
	Refused  int64            `json:"refused"`       // connections that could not be made anew

	Offered float64 `json:"offered"` // requests a second that were to be sent; 0 in a closed loop
	Rate    float64 `json:"rate"`    // answers a second within the time

	// Latency is from the intended time on, Service from when the request was
	// sent; in a closed loop they are the same. Lag is how late the generator was.
	Latency Summary      `json:"latency"`
	Service Summary      `json:"service"`
	Lag     Summary      `json:"lag"`
	Kinds   []KindResult `json:"kinds,omitempty"`
	Points  []Point      `json:"points"`

	Generator Usage  `json:"generator"`
	Target    *Usage `json:"target,omitempty"`
	// Bound says why the figures are the generator's own; empty if they are not.
	Bound string `json:"bound,omitempty"`
}

// A KindResult is what came of one kind of a mix.
type KindResult struct {
	Name    string  `json:"name"`
	Done    int64   `json:"done"`
	Failed  int64   `json:"failed"`
	Latency Summary `json:"latency"`
}

// A Point is one second of a run.
type Point struct {
	At     float64       `json:"at"` // seconds since the part that counts began, at the end
	Warm   bool          `json:"-"`
	Rate   float64       `json:"rate"` // answers a second
	Sent   float64       `json:"sent"` // requests a second
	Failed int64         `json:"failed"`
	P50    time.Duration `json:"p50"`
	P99    time.Duration `json:"p99"`
	Max    time.Duration `json:"max"`
	Lag    time.Duration `json:"lag"` // p99
	Own    float64       `json:"own"` // cores that the generator used
	Cores  float64       `json:"cores,omitempty"`
	Memory int64         `json:"memory,omitempty"` // of the target
}

// A Usage is what a process used in the time that counts.
type Usage struct {
	PID        int           `json:"pid"`
	CPU        time.Duration `json:"cpu"`
	Cores      float64       `json:"cores"` // CPU time by time
	Share      float64       `json:"share,omitempty"`
	PerRequest time.Duration `json:"perRequest"`
	Memory     int64         `json:"memory,omitempty"` // at its highest
}

// A Summary is a distribution of durations.
type Summary struct {
	Count  int64         `json:"count"`
	Min    time.Duration `json:"min"`
	Mean   time.Duration `json:"mean"`
	StdDev time.Duration `json:"stddev"`
	P50    time.Duration `json:"p50"`
	P90    time.Duration `json:"p90"`
	P99    time.Duration `json:"p99"`
	P999   time.Duration `json:"p999"`
	P9999  time.Duration `json:"p9999"`
	Max    time.Duration `json:"max"`
	// HDR is the whole of it, as HdrHistogram's V2 encoding has it.
	HDR string `json:"hdr,omitempty"`

	hist *hdr.Histogram
}

func summarize(h *hdr.Histogram) (Summary, error) {
	s := Summary{Count: h.TotalCount(), hist: h}
	if s.Count == 0 {
		return s, nil
	}
	code, err := h.EncodeV2()
	if err != nil {
		return s, fmt.Errorf("encode a histogram: %w", err)
	}
	s.HDR = string(code)
	s.Min, s.Max = time.Duration(h.Min()), time.Duration(h.Max())
	s.Mean, s.StdDev = time.Duration(h.Mean()), time.Duration(h.StdDev())
	s.P50, s.P90, s.P99, s.P999, s.P9999 = s.At(50), s.At(90), s.At(99), s.At(99.9), s.At(99.99)
	return s, nil
}

// At returns the duration that so many percent did not exceed.
func (s *Summary) At(percent float64) time.Duration {
	if s.hist == nil {
		return 0
	}
	return min(time.Duration(s.hist.ValueAtPercentile(percent)), max(s.Max, time.Duration(s.hist.Max())))
}

// Load reads a result that was written as JSON.
func Load(b []byte) (*Result, error) {
	r := &Result{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("not a result of this tool: %w", err)
	}
	if r.Schema != schema {
		return nil, fmt.Errorf("result has schema %d, this tool reads %d", r.Schema, schema)
	}
	all := []*Summary{&r.Latency, &r.Service, &r.Lag}
	for i := range r.Kinds {
		all = append(all, &r.Kinds[i].Latency)
	}
	for _, s := range all {
		if s.HDR == "" {
			continue
		}
		h, err := hdr.Decode([]byte(s.HDR))
		if err != nil {
			return nil, fmt.Errorf("histogram in the result: %w", err)
		}
		s.hist = h
	}
	return r, nil
}

// machine is what a result was taken on, in words.
func machine() string {
	return fmt.Sprintf("%s/%s, %d CPUs, GOMAXPROCS %d, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.GOMAXPROCS(0), runtime.Version())
}

// What a run may be of its own making.
const (
	// lagFloor is a lag that is never held against a run.
	lagFloor = 100 * time.Microsecond
	// cpuShare is the most of its CPUs that the generator may use.
	cpuShare = 0.90
	// cpuTime is the shortest run whose CPU time is judged: the system's books are
	// written when threads are switched, and are coarse for less.
	cpuTime = 500 * time.Millisecond
)

// bound says why the figures are the generator's own, or nothing.
func (r *Result) bound() string {
	lag, most := r.Lag.P99, time.Duration(r.Spec.LagShare*float64(r.Latency.P99))
	switch {
	case r.Generator.Share > cpuShare && r.Elapsed >= cpuTime:
		return fmt.Sprintf("the generator used %.0f %% of its CPUs, and more than %.0f %% means that it was the bottleneck: ask for less, or give it more CPUs and --workers",
			100*r.Generator.Share, 100*cpuShare)
	case lag > max(most, lagFloor):
		return fmt.Sprintf("the generator was late: p99 of its lag is %v, and more than %.0f %% of the latency's (%v) means that figures are its own: ask for less, or give it a CPU of its own",
			lag.Round(time.Microsecond), 100*r.Spec.LagShare, r.Latency.P99.Round(time.Microsecond))
	}
	return ""
}

// Figures that conditions speak of, besides durations.
func (r *Result) share(n int64) float64 {
	if r.Sent == 0 {
		return math.NaN()
	}
	return float64(n) / float64(r.Sent)
}
