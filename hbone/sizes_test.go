package hbone

import (
	"testing"
	"unsafe"
)

// TestSizes: a tunnel is two cache lines, so that none begins within one, and what
// events and writes need of it is in the first.
func TestSizes(t *testing.T) {
	var tun streamTunnel
	if got := unsafe.Sizeof(tun); got != 128 {
		t.Errorf("a streamTunnel has %d bytes, want 128: adjust what fills it up", got)
	}
	if at := unsafe.Offsetof(tun.conn); at >= 64 {
		t.Errorf("what events and writes need ends beyond %d bytes", at)
	}
}
