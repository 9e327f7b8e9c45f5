package proxy

import (
	"testing"
	"unsafe"
)

// TestSizes: an idle connection holds an inner or an opaque, and each request in
// progress an exchange. Too small a figure is a budget to tighten.
func TestSizes(t *testing.T) {
	for _, row := range []struct {
		name      string
		got, want uintptr
	}{
		{"inner", unsafe.Sizeof(inner{}), 368},
		{"opaque", unsafe.Sizeof(opaque{}), 600},
		{"exchange", unsafe.Sizeof(exchange{}), 1280},
		{"inner2", unsafe.Sizeof(inner2{}), 144},
		{"stream2", unsafe.Sizeof(stream2{}), 184},
	} {
		if row.got > row.want || row.got < row.want-row.want/8 {
			t.Errorf("%s has %d bytes, the budget is %d", row.name, row.got, row.want)
		}
	}
}
