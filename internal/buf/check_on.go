//go:build housecheck

package buf

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unsafe"
)

// Check says that buffers are poisoned and their owners checked.
const Check = true

// poison fills what has been returned.
const poison = 0xDB

// lent knows every buffer that is out, and who asked for it.
var lent struct {
	sync.Mutex
	by map[*byte][]uintptr
}

func lend(b []byte) {
	p := unsafe.SliceData(b)
	full := b[:cap(b)]
	if cap(b) <= large {
		checkPoison(full)
	}
	pc := make([]uintptr, 8)
	pc = pc[:runtime.Callers(3, pc)]
	lent.Lock()
	defer lent.Unlock()
	if lent.by == nil {
		lent.by = make(map[*byte][]uintptr)
	}
	lent.by[p] = pc
}

// checkPoison panics if a buffer was written after it came back. A new one is
// all zero, a pooled one all poison.
func checkPoison(b []byte) {
	want := b[0]
	if want != 0 && want != poison {
		panic(fmt.Sprintf("buf: a returned buffer was written: its first byte is %#x", want))
	}
	for i, v := range b {
		if v != want {
			panic(fmt.Sprintf("buf: a returned buffer was written: byte %d is %#x", i, v))
		}
	}
}

func takeBack(b []byte) {
	p := unsafe.SliceData(b)
	lent.Lock()
	_, ok := lent.by[p]
	delete(lent.by, p)
	lent.Unlock()
	if !ok {
		panic("buf: a buffer was returned twice, or was not lent")
	}
	for i := range b {
		b[i] = poison
	}
}

// Holders names the calls that asked for what is still out, with counts.
func Holders() map[string]int {
	lent.Lock()
	defer lent.Unlock()
	out := make(map[string]int)
	for _, pc := range lent.by {
		who := ""
		for frames, more := runtime.CallersFrames(pc), true; more; {
			var f runtime.Frame
			f, more = frames.Next()
			who += fmt.Sprintf(" < %s:%d", f.Function, f.Line)
		}
		out[strings.TrimPrefix(who, " < ")]++
	}
	return out
}
