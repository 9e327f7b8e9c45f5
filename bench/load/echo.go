package load

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// An echoing sends bytes over a bare connection and wants them back.
type echoing struct {
	on   *attempt
	slot *slot
	sink turn.Sink

	// Guarded by the slot's lane.
	out  *message // nil: nothing is on its way
	body sending
	off  int // of what has come back

	give giveBack
}

func newEchoing(a *attempt) *echoing {
	x := &echoing{on: a, slot: a.link.slots[0]}
	x.give = x.drop
	return x
}

func (x *echoing) begin(t *turn.Turn, sink turn.Sink) {
	x.sink = sink
	x.on.ready(t)
}

func (x *echoing) ask(t *turn.Turn, s *slot) {
	x.out, x.off = &s.link.worker.run.messages[s.kind], 0
	s.give = x.give
	x.body.rest = x.out.bytes
	x.body.pump(t, x.sink)
}

func (x *echoing) drop(t *turn.Turn) {
	x.out = nil
	x.sink.Abort(t, h2.CodeCancel)
}

func (x *echoing) feed(t *turn.Turn, p []byte) error {
	x.slot.Lock()
	defer x.slot.Unlock()
	if x.out == nil {
		return errUnasked
	}
	n, err := x.out.back(p, x.off)
	if err != nil {
		return err
	}
	if x.off += n; x.off == len(x.out.bytes) {
		x.out = nil
		x.slot.done(t, outcome{bytes: int64(n)}, true)
	}
	return nil
}

// back compares what has come back with what was sent, from an offset on.
func (m *message) back(p []byte, off int) (int, error) {
	if len(p) > len(m.bytes)-off {
		return 0, malformedf(Content, "more came back than was sent")
	}
	if !bytes.Equal(p, m.bytes[off:off+len(p)]) {
		return 0, malformedf(Content, "other bytes came back than were sent, at or after byte %d", off)
	}
	return len(p), nil
}

func (x *echoing) left(t *turn.Turn) {
	x.slot.Lock()
	defer x.slot.Unlock()
	x.body.pump(t, x.sink)
}

func (x *echoing) closed(t *turn.Turn, err error) { x.on.over(t, err) }

// A chat sends WebSocket messages (RFC 6455) and wants them back.
type chat struct {
	on   *attempt
	slot *slot
	sink turn.Sink
	key  string

	// Guarded by the slot's lane.
	open   bool
	res    response // to the upgrade
	frames frameReader
	mask   [4]byte
	out    *message // nil: nothing is on its way
	body   sending
	buf    []byte // the frame that goes out
	off    int    // of what has come back

	give giveBack
}

func newChat(a *attempt) *chat {
	x := &chat{on: a, slot: a.link.slots[0]}
	x.give = x.drop
	return x
}

func (x *chat) begin(t *turn.Turn, sink turn.Sink) {
	x.sink = sink
	var nonce [16]byte
	rand.Read(nonce[:])
	rand.Read(x.mask[:])
	x.key = base64.StdEncoding.EncodeToString(nonce[:])
	x.res.expect(false)
	x.res.upgrade = true
	k := x.slot.link.worker.run.spec.Mix[0] // a connection is opened once, for all kinds
	k.Method, k.Size, k.Body = "GET", 0, nil
	head := k.head()
	head = append(head[:len(head)-2], "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: "+x.key+"\r\n\r\n"...)
	x.sink.Write(t, head)
}

// acceptKey is what the answer to an upgrade must have (section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (x *chat) ask(t *turn.Turn, s *slot) {
	x.out, x.off = &s.link.worker.run.messages[s.kind], 0
	s.give = x.give
	x.buf = appendFrame(x.buf[:0], opBinary, x.out.bytes, x.mask)
	x.body.rest = x.buf
	x.body.pump(t, x.sink)
}

func (x *chat) drop(t *turn.Turn) {
	x.out = nil
	x.sink.Abort(t, h2.CodeCancel)
}

func (x *chat) feed(t *turn.Turn, p []byte) error {
	ready, p, err := x.upgrade(p)
	if ready {
		x.on.ready(t)
	}
	if err != nil || len(p) == 0 {
		return err
	}
	x.slot.Lock()
	defer x.slot.Unlock()
	for len(p) > 0 {
		n, data, err := x.frames.feed(p)
		if err != nil {
			return err
		}
		p = p[n:]
		if !x.frames.inBody && !x.frames.ended {
			return nil // its head is not whole
		}
		if err := x.frame(t, data); err != nil {
			return err
		}
	}
	return nil
}

// upgrade reads the answer to the upgrade, and returns what came behind it.
func (x *chat) upgrade(p []byte) (ready bool, rest []byte, err error) {
	x.slot.Lock()
	defer x.slot.Unlock()
	if x.open {
		return false, p, nil
	}
	n, done, err := x.res.feed(p)
	switch {
	case err != nil:
		return false, nil, err
	case x.res.at != inHead || done && x.res.status != 101:
		return false, nil, malformedf(Status, "the upgrade was answered with %d", x.res.status)
	case !done:
		return false, nil, nil
	case string(x.res.accept) != acceptKey(x.key):
		return false, nil, malformedf(Malformed, "the upgrade was accepted for another key")
	}
	x.open = true
	return true, p[n:], nil
}

// frame takes what one feed of the frame reader has brought.
func (x *chat) frame(t *turn.Turn, data []byte) error {
	switch f := &x.frames; {
	case f.ended && f.op == opPing:
		x.sink.Write(t, appendFrame(nil, opPong, f.control, x.mask))
		return nil
	case f.op == opClose:
		return malformedf(Disconnect, "the target ended the WebSocket: % x", f.control)
	case f.op >= opClose:
		return nil
	case x.out == nil:
		return errUnasked
	}
	n, err := x.out.back(data, x.off)
	if err != nil {
		return err
	}
	x.off += n
	if !x.frames.ended || !x.frames.fin || x.off < len(x.out.bytes) {
		return nil // some servers echo what they have of a message
	}
	x.out = nil
	x.slot.done(t, outcome{bytes: int64(x.off)}, true)
	return nil
}

func (x *chat) left(t *turn.Turn) {
	x.slot.Lock()
	defer x.slot.Unlock()
	x.body.pump(t, x.sink)
}

func (x *chat) closed(t *turn.Turn, err error) { x.on.over(t, err) }

// Opcodes (RFC 6455, section 5.2).
const (
	opMore   = 0x0
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
)

// appendFrame writes one whole message, masked as a client's must be.
func appendFrame(b []byte, op byte, p []byte, mask [4]byte) []byte {
	b = append(b, 0x80|op)
	switch n := len(p); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	for i, c := range p {
		b = append(b, c^mask[i&3])
	}
	return b
}

// A frameReader reads a server's frames, which come in pieces.
type frameReader struct {
	op      byte // of the frame, or of the message that it goes on with
	fin     bool
	ended   bool // the frame ends with the bytes that feed returned
	control []byte

	head   [10]byte
	have   int
	left   uint64
	inBody bool
	text   byte // the op of the message that is not whole yet; 0 is none
}

// feed takes bytes up to the end of one frame at most, and returns those of them
// that are a message's.
func (f *frameReader) feed(p []byte) (n int, data []byte, err error) {
	f.ended = false
	if !f.inBody {
		for n < len(p) && (f.have < 2 || f.have < f.headLen()) {
			f.head[f.have] = p[n]
			f.have++
			n++
		}
		if f.have < 2 || f.have < f.headLen() {
			return n, nil, nil
		}
		if err := f.begin(); err != nil {
			return n, nil, err
		}
	}
	m := min(f.left, uint64(len(p)-n))
	data = p[n : n+int(m)]
	f.left -= m
	if f.ended = f.left == 0; f.ended {
		f.inBody, f.have = false, 0
	}
	if f.op >= opClose {
		f.control = append(f.control, data...)
		data = nil
	}
	return n + int(m), data, nil
}

func (f *frameReader) headLen() int {
	switch f.head[1] & 0x7F {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

// begin reads a frame's head.
func (f *frameReader) begin() error {
	op, n := f.head[0]&0x0F, uint64(f.head[1]&0x7F)
	f.fin = f.head[0]&0x80 != 0
	switch n {
	case 126:
		n = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		n = binary.BigEndian.Uint64(f.head[2:])
	}
	switch {
	case f.head[0]&0x70 != 0, f.head[1]&0x80 != 0:
		return malformedf(Malformed, "WebSocket frame begins with % x", f.head[:2])
	case op >= opClose && (op > opPong || n > 125 || !f.fin):
		return malformedf(Malformed, "WebSocket control frame begins with % x", f.head[:2])
	case op == opMore && f.text == 0, (op == opText || op == opBinary) && f.text != 0, op > opBinary && op < opClose:
		return malformedf(Malformed, "WebSocket frame of type %x out of order", op)
	case n > maxBody:
		return malformedf(Malformed, "WebSocket frame of %d bytes", n)
	}
	f.inBody, f.left, f.op, f.control = true, n, op, f.control[:0]
	if op < opClose {
		f.text = opBinary
		if f.fin {
			f.text = 0
		}
	}
	return nil
}
