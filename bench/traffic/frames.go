package traffic

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// HTTP/2 by hand (RFC 9113, sections 4 and 6), for ends that keep a ledger of
// windows: they must not share the arithmetic of the engine under test.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8

	flagEnd     = 0x1 // END_STREAM; ACK of SETTINGS and PING
	flagHeaders = 0x4 // END_HEADERS
	flagPadded  = 0x8

	settingStreams = 0x3
	settingWindow  = 0x4

	codeCancel = 0x8
	preface    = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHead  = 9
	maxFrame   = 16 << 10

	// handWindow is the connection's window that a ledger grants: smaller than
	// handStream, so that the connection's is what a bulk stops at.
	handWindow = 1 << 20
	handStream = 16 << 20
)

// A frame is one as received; its payload is a view until the next one is read.
type frame struct {
	typ, flags byte
	id         uint32
	p          []byte
}

func (f *frame) end() bool { return f.flags&flagEnd != 0 }

// A hand is one end of an HTTP/2 connection, written by hand. It keeps the
// ledger of the connection's windows.
type hand struct {
	nc     net.Conn
	r      *bufio.Reader
	out    []byte
	skip   int // of the frame handed out last
	window uint32

	// The ledger.
	may      int64 // what the peer lets us send
	peak     int64 // the most that was since it was last cleared
	granted  int64 // what we have let the peer send, ever
	got      int64 // what it has sent
	owed     int64 // received and not yet credited
	withhold bool  // credit nothing
}

func newHand(nc net.Conn, client bool) *hand {
	h := &hand{nc: nc, r: bufio.NewReaderSize(nc, 2*maxFrame), window: 65535, may: 65535, peak: 65535, granted: 65535}
	if client {
		h.out = append(h.out, preface...)
	}
	var s []byte
	s = binary.BigEndian.AppendUint16(s, settingStreams)
	s = binary.BigEndian.AppendUint32(s, manyStreams)
	s = binary.BigEndian.AppendUint16(s, settingWindow)
	s = binary.BigEndian.AppendUint32(s, handStream)
	h.append(frameSettings, 0, 0, s)
	h.grant(handWindow - 65535)
	return h
}

func (h *hand) append(typ, flags byte, id uint32, p []byte) {
	h.out = append(h.out, byte(len(p)>>16), byte(len(p)>>8), byte(len(p)), typ, flags)
	h.out = binary.BigEndian.AppendUint32(h.out, id)
	h.out = append(h.out, p...)
	if typ == frameData {
		h.may -= int64(len(p))
	}
}

func (h *hand) appendUint32(typ byte, id, v uint32) {
	h.append(typ, 0, id, binary.BigEndian.AppendUint32(nil, v))
}

func (h *hand) reset(id uint32) { h.appendUint32(frameReset, id, codeCancel) }

func (h *hand) grant(n int64) {
	h.granted += n
	h.appendUint32(frameWindowUpdate, 0, uint32(n))
}

// outstanding is how much the peer may still send, if it has forgotten nothing.
func (h *hand) outstanding() int64 { return h.granted - h.got }

// flush writes what was appended.
func (h *hand) flush() error {
	if len(h.out) == 0 {
		return nil
	}
	h.nc.SetWriteDeadline(time.Now().Add(handshakeTime))
	_, err := h.nc.Write(h.out)
	h.out = h.out[:0]
	return err
}

// errQuiet says that nothing came in the time that next was given.
var errQuiet = errors.New("nothing came")

// next returns the next frame of a stream, and sees to those of the connection.
// It flushes before it would wait.
func (h *hand) next(within time.Duration) (frame, error) {
	for {
		if h.r.Buffered() < frameHead+h.skip {
			if err := h.flush(); err != nil {
				return frame{}, err
			}
			h.nc.SetReadDeadline(time.Now().Add(within))
		}
		f, err := h.read()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				err = errQuiet
			}
			return f, err
		}
		mine, err := h.connection(&f)
		if !mine || err != nil {
			return f, err
		}
	}
}

func (h *hand) read() (f frame, err error) {
	h.r.Discard(h.skip)
	h.skip = 0
	b, err := h.r.Peek(frameHead)
	if err != nil {
		return f, err
	}
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if n > maxFrame {
		return f, fmt.Errorf("frame of %d bytes", n)
	}
	if b, err = h.r.Peek(frameHead + n); err != nil {
		return f, err
	}
	h.skip = frameHead + n
	return frame{b[3], b[4], binary.BigEndian.Uint32(b[5:]) &^ (1 << 31), b[frameHead:]}, nil
}

// connection handles what is not a stream's, and keeps the ledger.
func (h *hand) connection(f *frame) (mine bool, err error) {
	switch f.typ {
	case frameSettings:
		if f.flags&flagEnd != 0 {
			return true, nil
		}
		for p := f.p; len(p) >= 6; p = p[6:] {
			if binary.BigEndian.Uint16(p) == settingWindow {
				h.window = binary.BigEndian.Uint32(p[2:])
			}
		}
		h.append(frameSettings, flagEnd, 0, nil)
		return true, nil
	case framePing:
		if f.flags&flagEnd == 0 {
			h.append(framePing, flagEnd, 0, f.p)
		}
		return f.flags&flagEnd == 0, nil // the answer to ours is somebody's
	case frameGoAway:
		return true, fmt.Errorf("GOAWAY: %q", f.p[min(8, len(f.p)):])
	case frameWindowUpdate:
		if f.id != 0 {
			return false, nil
		}
		h.may += int64(binary.BigEndian.Uint32(f.p))
		h.peak = max(h.peak, h.may)
		return true, nil
	case frameData:
		h.received(f)
	}
	return false, nil
}

// received notes DATA, gives credit back at a quarter of the window, and takes
// padding off.
func (h *hand) received(f *frame) {
	h.got += int64(len(f.p))
	h.owed += int64(len(f.p))
	if !h.withhold && h.owed >= handWindow/4 {
		h.grant(h.owed)
		h.owed = 0
	}
	if f.flags&flagPadded != 0 && len(f.p) > 0 && int(f.p[0]) < len(f.p) {
		f.p = f.p[1 : len(f.p)-int(f.p[0])]
	}
}

// credit gives back what was withheld.
func (h *hand) credit() {
	h.withhold = false
	if h.owed > 0 {
		h.grant(h.owed)
		h.owed = 0
	}
}

// connectHead is CONNECT as a header block (RFC 7541): names by their place in
// the static table, values as they are, nothing indexed.
func connectHead(authority string) []byte {
	b := append([]byte{0x02, 7}, "CONNECT"...)
	b = append(b, 0x01, byte(len(authority)))
	return append(b, authority...)
}

// okHead is :status 200, which the static table has.
var okHead = []byte{0x88}

// dialHand connects the client's end.
func dialHand(ctx context.Context, addr string, config *tls.Config) (*hand, error) {
	d := tls.Dialer{Config: config}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the proxy: %w", err)
	}
	return newHand(nc, true), nil
}

// acceptHand reads the client's preface on the server's end.
func acceptHand(nc net.Conn) (*hand, error) {
	h := newHand(nc, false)
	nc.SetReadDeadline(time.Now().Add(handshakeTime))
	p := make([]byte, len(preface))
	if _, err := io.ReadFull(h.r, p); err != nil {
		return nil, fmt.Errorf("preface: %w", err)
	}
	if string(p) != preface {
		return nil, errors.New("no HTTP/2 preface")
	}
	return h, nil
}
