package house

import (
	"go/ast"
	"strings"
)

// wallClock is who may ask a time for its date: what writes it for people or other
// programs, and what checks certificates.
const wallClock = "proxy/accesslog proxy/records internal/metrics internal/admin internal/devca internal/devmesh hbone/peer"

// checkClocks: how long something lasts is told by the monotonic clock, which
// nobody sets. A time that is stored as a number of seconds since 1970 has lost it,
// and a clock that jumps would end, or keep, every idle connection at once. Times
// may be dates in time.Time, and moments in turn.Tick.
func checkClocks(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if f.test || among(wallClock, f.pkg) || strings.HasPrefix(f.pkg, "bench") || strings.HasPrefix(f.pkg, "cmd/") {
			continue
		}
		ast.Inspect(f.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && len(call.Args) == 0 && among("Unix UnixNano UnixMilli UnixMicro", sel.Sel.Name) {
				bad = append(bad, tr.at(n)+": "+sel.Sel.Name+" of a time loses the monotonic clock: keep a turn.Tick")
			}
			return true
		})
	}
	return bad
}
