package h2

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A callee answers each request with a head, content and trailers.
type callee struct{ idle }

var (
	calleeHead    = []Field{NewField(":status", "200"), NewField("content-type", "application/grpc")}
	calleeTrailer = []Field{NewField("grpc-status", "0"), NewField("grpc-message", "")}
	calleeContent = make([]byte, 1024)
)

func (h *callee) Request(_ *turn.Turn, s *Stream, _ []Field, _ bool) { s.Handle(h) }
func (h *callee) Data(t *turn.Turn, s *Stream, p []byte, end bool) {
	s.Consume(t, len(p))
	if end {
		s.SendHeaders(t, calleeHead, false)
		s.Write(t, calleeContent)
		s.SendHeaders(t, calleeTrailer, true)
	}
}

// BenchmarkCall is a unary call on a server's end: a head of ten fields that recur,
// a little content, and the answer.
func BenchmarkCall(b *testing.B) {
	h := &callee{}
	c := NewConn(&nowhere{}, h, Options{Limits: wide})
	var t turn.Turn
	c.Start(&t)
	feed := func(p []byte) {
		if err := c.Feed(&t, p); err != nil {
			b.Fatal(err)
		}
		t.End()
	}
	settings := append([]byte(clientPreface), 0, 0, 6, frameSettings, 0, 0, 0, 0, 0, 0, settingWindow, 0x7f, 0xff, 0xff, 0xff)
	feed(settings)
	var e encoder
	e.init()
	id := uint32(1)
	call := func() []byte {
		var block []byte
		for i := range callHead {
			block = e.appendField(block, &callHead[i])
		}
		p := append([]byte{0, 0, byte(len(block)), frameHeaders, flagEndHeaders, 0, 0, 0, 0}, block...)
		return append(p, 0, 0, 5, frameData, flagEndStream, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o')
	}
	once := func(p []byte) {
		binary.BigEndian.PutUint32(p[5:], id)
		binary.BigEndian.PutUint32(p[len(p)-9:], id)
		c.sendWin = 1 << 30
		feed(p)
		id += 2
	}
	for range 3 { // until all is in the table
		once(call())
	}
	p := call()
	b.ReportAllocs()
	for b.Loop() {
		once(p)
	}
}

// BenchmarkBomb is a head of 16 KB that names an entry of 4 KB with each byte.
func BenchmarkBomb(b *testing.B) {
	var d decoder
	d.max = tableSize
	field := append([]byte{0x40, 1, 'x', 0x7f, 0xa1, 0x1e}, make([]byte, 4000)...)
	if err := d.decode(field, 100, 64<<10); err != nil {
		b.Fatal(err)
	}
	d.release()
	bomb := bytes.Repeat([]byte{0xbe}, 16_000)
	for b.Loop() {
		if err := d.decode(bomb, 100, 64<<10); err != nil {
			b.Fatal(err)
		}
		d.release()
	}
}
