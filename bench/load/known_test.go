package load

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/testnet"
)

// known is a server whose times are known, in fake time: it is asked when a
// request has come, and says after how long to answer.
type known func() time.Duration

// connected opens a connection to it.
func (k known) connected(context.Context, string) (net.Conn, error) {
	c, s := testnet.Pair()
	go func() {
		defer s.Close()
		buf := make([]byte, 4096)
		for {
			n, err := s.Read(buf)
			if err != nil {
				return
			}
			if n < 4 || string(buf[n-4:n]) != "\r\n\r\n" {
				panic("the request came in pieces")
			}
			time.Sleep(k())
			s.Write([]byte("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"))
		}
	}()
	return c, nil
}

// serial answers one request at a time, each after the same time of service.
func serial(service time.Duration) known {
	var mu sync.Mutex
	var free time.Time
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); free.Before(now) {
			free = now
		}
		free = free.Add(service)
		return time.Until(free)
	}
}

// measured runs a spec on a known server, in a bubble of fake time.
func measured(t *testing.T, s Spec, k known) *Result {
	t.Helper()
	s.Target = Target{Addr: "192.0.2.2:80", AllowRemote: true}
	s.Workers = 1
	r, err := Do(t.Context(), s, Options{dial: k.connected, sleep: time.Sleep})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // for the server's goroutines to end
	if r.Failed != 0 || r.Done != r.Latency.Count || r.Done == 0 {
		t.Fatalf("%d answered, %d failed, %d latencies: %v", r.Done, r.Failed, r.Latency.Count, r.Why)
	}
	return r
}

// near reports whether a duration is within 1 % of what it should be.
func near(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if math.Abs(float64(got-want)) > 0.01*float64(want) {
		t.Errorf("%s is %v, want %v within 1 %%", what, got, want)
	}
}

// between are the two values of a sorted list that a percentile lies between,
// whose rank is no whole number.
func between(sorted []time.Duration, p float64) (low, high time.Duration) {
	rank := p / 100 * float64(len(sorted))
	return sorted[max(0, int(math.Floor(rank))-1)], sorted[max(0, int(math.Ceil(rank))-1)]
}

// TestPercentiles: service times of several shapes, and enough connections.
func TestPercentiles(t *testing.T) {
	statistics(t)
	random := rand.New(rand.NewPCG(7, 7))
	shapes := map[string]func() time.Duration{
		"constant": func() time.Duration { return 3 * time.Millisecond },
		"uniform":  func() time.Duration { return time.Duration(random.Int64N(int64(50 * time.Millisecond))) },
		"lognormal": func() time.Duration {
			return time.Duration(float64(2*time.Millisecond) * math.Exp(random.NormFloat64()))
		},
		"two modes": func() time.Duration {
			if random.IntN(50) == 0 {
				return 400 * time.Millisecond
			}
			return time.Duration(100+random.IntN(100)) * time.Microsecond
		},
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var served []time.Duration
				r := measured(t, Spec{Schedule: Schedule{Rate: 500}, Connections: 400, For: 20 * time.Second}, func() time.Duration {
					mu.Lock()
					defer mu.Unlock()
					served = append(served, shape())
					return served[len(served)-1]
				})
				slices.Sort(served)
				for _, p := range []float64{1, 10, 25, 50, 75, 90, 99, 99.9, 99.99, 100} {
					for what, got := range map[string]time.Duration{"latency": r.Latency.At(p), "service": r.Service.At(p)} {
						low, high := between(served, p)
						if float64(got) < 0.99*float64(low) || float64(got) > 1.01*float64(high) {
							t.Errorf("p%v of %s is %v, want %v to %v within 1 %%", p, what, got, low, high)
						}
					}
				}
				if r.Waited != 0 || r.Lag.Max != 0 || r.Bound != "" {
					t.Errorf("%d waited, lag %v, %s", r.Waited, r.Lag.Max, r.Bound)
				}
				if math.Abs(r.Rate-500) > 5 || math.Abs(r.Offered-500) > 5 {
					t.Errorf("rate %v of %v offered, want 500", r.Rate, r.Offered)
				}
			})
		})
	}
}

// TestOverload: a server that takes 10 ms for each, one after the other, is asked
// for more than it can do. A closed loop of n sees n times 10 ms and no more, for
// it waits; of an open loop each request waits longer than the one before.
func TestOverload(t *testing.T) {
	statistics(t)
	const service, n, over = 10 * time.Millisecond, 8, 4 * time.Second
	synctest.Test(t, func(t *testing.T) {
		r := measured(t, Spec{Schedule: Schedule{Shape: Closed}, Connections: n, Warm: time.Second, For: over}, serial(service))
		near(t, "closed loop's p50", r.Latency.P50, n*service)
		near(t, "closed loop's p99", r.Latency.P99, n*service)
		if math.Abs(r.Rate-100) > 1 {
			t.Errorf("closed loop's rate is %v, want 100", r.Rate)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// 200/s come and 100/s go: who comes at t waits t, and is served.
		r := measured(t, Spec{Schedule: Schedule{Rate: 200}, Connections: n, For: over}, serial(service))
		near(t, "open loop's p50", r.Latency.P50, over/2+service)
		near(t, "open loop's p99", r.Latency.P99, time.Duration(0.99*float64(over))+service)
		near(t, "open loop's service time", r.Service.P50, n*service) // as in the closed loop
		if r.Bound != "" {
			t.Errorf("the target's slowness was taken for the generator's: %s", r.Bound)
		}
		if math.Abs(r.Rate-100) > 1 || math.Abs(r.Offered-200) > 2 || r.Waited == 0 {
			t.Errorf("rate %v of %v offered, %d waited, want 100 of 200", r.Rate, r.Offered, r.Waited)
		}
	})
}

// TestQueue: a Poisson stream and constant service are the queue M/D/1.
func TestQueue(t *testing.T) {
	statistics(t)
	const service, load = 10 * time.Millisecond, 0.8
	synctest.Test(t, func(t *testing.T) {
		s := Spec{Schedule: Schedule{Shape: Poisson, Rate: 80}, Connections: 200, For: 1000 * time.Second, Timeout: time.Minute, Seed: 3}
		r := measured(t, s, serial(service))
		// What this very stream has to wait, by Lindley's recursion.
		s.Workers = 1
		a := newArrivals(&s, s.For, 0)
		var all []time.Duration
		var free time.Duration
		for {
			at, _ := a.next()
			if at >= s.For {
				break
			}
			free = max(free, at) + service
			all = append(all, free-at)
		}
		slices.Sort(all)
		for _, p := range []float64{50, 90, 99, 99.9} {
			_, want := between(all, p)
			near(t, fmt.Sprintf("p%v", p), r.Latency.At(p), want)
		}
		// What the theory says of all such streams (Pollaczek and Khinchine).
		mean := service + time.Duration(load/(2*(1-load))*float64(service))
		if d := math.Abs(float64(r.Latency.Mean-mean)) / float64(mean); d > 0.05 {
			t.Errorf("mean is %v, theory says %v", r.Latency.Mean, mean)
		}
	})
}

// TestStall: for one second in ten nothing is answered. An open loop shows what
// clients feel of it; in a closed loop each connection feels it once.
func TestStall(t *testing.T) {
	statistics(t)
	stalling := func() known {
		begin := time.Now()
		return func() time.Duration {
			if at := time.Since(begin) % (10 * time.Second); at >= 5*time.Second && at < 6*time.Second {
				return 6*time.Second - at
			}
			return time.Millisecond
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := measured(t, Spec{Schedule: Schedule{Rate: 100}, Connections: 200, For: 100 * time.Second}, stalling())
		near(t, "open loop's p95", r.Latency.At(95), 500*time.Millisecond)
		near(t, "open loop's p99", r.Latency.P99, 900*time.Millisecond)
	})
	synctest.Test(t, func(t *testing.T) {
		r := measured(t, Spec{Schedule: Schedule{Shape: Closed}, Connections: 1, For: 100 * time.Second}, stalling())
		near(t, "closed loop's p99", r.Latency.P99, time.Millisecond)
		near(t, "closed loop's max", r.Latency.Max, time.Second)
	})
}

// TestGeneratorBound: a generator that sleeps too long says so, and fails the
// run; the same one without that does not.
func TestGeneratorBound(t *testing.T) {
	for _, late := range []time.Duration{0, 2 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			k := known(func() time.Duration { return 5 * time.Millisecond })
			r, err := Do(t.Context(), Spec{Target: Target{Addr: "192.0.2.2:80", AllowRemote: true}, Workers: 1, Schedule: Schedule{Rate: 100}, For: 5 * time.Second},
				Options{dial: k.connected, sleep: func(d time.Duration) { time.Sleep(d + late) }})
			if err != nil {
				t.Fatal(err)
			}
			if late == 0 && r.Bound != "" || late > 0 && !strings.Contains(r.Bound, "late") {
				t.Errorf("%v late: %q", late, r.Bound)
			}
			if late > 0 {
				near(t, "lag", r.Lag.P50, late)
				near(t, "latency", r.Latency.P50, late+5*time.Millisecond)
				near(t, "service", r.Service.P50, 5*time.Millisecond)
			}
		})
	}
}

// TestTimeouts: requests that are never answered count, with the time that was
// waited for them, whether or not they found a connection.
func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := known(func() time.Duration { return time.Hour })
		defer time.Sleep(time.Hour) // the server's own
		s := Spec{Target: Target{Addr: "192.0.2.2:80", AllowRemote: true}, Workers: 1, Connections: 2, Schedule: Schedule{Rate: 10}, For: 10 * time.Second, Timeout: time.Second}
		r, err := Do(t.Context(), s, Options{dial: k.connected, sleep: time.Sleep})
		if err != nil {
			t.Fatal(err)
		}
		if n := r.Failures["timeout"] + r.Failures["unfinished"]; n != r.Sent || r.Done != 0 || r.Sent < 98 {
			t.Errorf("%d timeouts of %d requests, %d answered: %v", n, r.Sent, r.Done, r.Failures)
		}
		if r.Latency.Count != r.Sent || r.Latency.Min < 900*time.Millisecond {
			t.Errorf("latencies of those: %+v", r.Latency)
		}
	})
}

// TestDropped: no more requests wait for a connection than there is room for;
// those beyond are failures, told as such.
func TestDropped(t *testing.T) {
	for queue, want := range map[int]int64{5: 92, 1000: 0} { // of 99 one is sent, one more when that is answered, and 5 wait
		synctest.Test(t, func(t *testing.T) {
			k := known(func() time.Duration { return 600 * time.Millisecond })
			s := Spec{Target: Target{Addr: "192.0.2.2:80", AllowRemote: true}, Connections: 1, Schedule: Schedule{Rate: 100}, For: time.Second, Timeout: time.Hour}
			r, err := Do(t.Context(), s, Options{dial: k.connected, sleep: time.Sleep, queue: queue})
			if err != nil {
				t.Fatal(err)
			}
			if n := r.Failures["dropped"]; n != want || r.Done+n != r.Sent || r.Sent != 99 {
				t.Errorf("room for %d: %d dropped of %d, %d answered, want %d dropped", queue, n, r.Sent, r.Done, want)
			}
			time.Sleep(time.Second)
		})
	}
}

// TestRamp: the rate rises evenly, and a ramp's points say what came of each rate.
func TestRamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := known(func() time.Duration { return time.Millisecond })
		r := measured(t, Spec{Schedule: Schedule{Rate: 100, To: 1000}, Connections: 50, For: 10 * time.Second}, k)
		if want := int64(5500); r.Sent < want-2 || r.Sent > want+2 {
			t.Errorf("%d requests, want %d", r.Sent, want)
		}
		for i, p := range r.Points {
			if want := 100 + 90*(p.At-0.5); math.Abs(p.Sent-want) > 12 {
				t.Errorf("second %d: %v sent, want %v", i+1, p.Sent, want)
			}
		}
	})
}

// statistics skips a test under the race detector: it wants many thousands of
// requests in fake time, for which that takes half a minute and fails a check of its
// own (tsan_rtl.cpp, an epoch's end). What runs at once there does in other tests.
func statistics(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("not for the race detector")
	}
}
