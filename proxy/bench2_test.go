package proxy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// BenchmarkCalls is unary gRPC calls, HBONE in and out over loopback, on so many
// mesh connections with so many calls at once on one HTTP/2 connection inside of
// each. Its ends are in the same process, and bare.
func BenchmarkCalls(b *testing.B) {
	for _, row := range []struct{ conns, calls int }{{1, 1}, {4, 8}, {8, 32}} {
		b.Run(fmt.Sprintf("%d×%d", row.conns, row.calls), func(b *testing.B) {
			c := newCourseOf(b, false, grpcDoc(once), answersCalls)
			askers := make([]*callAsker, row.conns)
			for i := range askers {
				pool := hbone.NewPool(hbone.PoolOptions{Certificates: c.pool.Certificates})
				b.Cleanup(pool.Close)
				askers[i] = c.openCallsFrom(pool, hbone.NewDest(c.mesh, netip.MustParseAddrPort("10.96.0.1:80"), c.expect))
			}
			run := func(n int) {
				for _, a := range askers {
					a.left, a.atOnce = n, row.calls
					var tn turn.Turn
					for range row.calls {
						a.ask(&tn)
					}
					tn.End()
				}
				for _, a := range askers {
					<-a.done
				}
			}
			run(1000)
			b.ReportAllocs()
			before := cpuTime()
			b.ResetTimer()
			n := max(b.N/row.conns, row.calls)
			run(n)
			b.ReportMetric(float64(cpuTime()-before)/float64(n*row.conns), "cpu-ns/call")
		})
	}
}
