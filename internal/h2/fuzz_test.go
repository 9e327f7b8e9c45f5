package h2

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// program turns a fuzzer's bytes into frames that are mostly well cut: type,
// flags, stream, length, payload. A type from 0x80 on stands for bytes that are
// passed on as they are.
func program(data []byte) []byte {
	var out []byte
	for len(data) >= 4 {
		typ, flags, id, n := data[0], data[1], data[2], int(data[3])
		data = data[4:]
		n = min(n, len(data))
		if typ < 0x80 {
			out = append(out, 0, byte(n>>8), byte(n), typ%12, flags, 0, 0, 0, id)
		}
		out = append(out, data[:n]...)
		data = data[n:]
	}
	return whole(out)
}

// whole cuts off a last frame that is not complete: Conn passes on what it has
// of one, http2.Framer does not.
func whole(p []byte) []byte {
	for at := 0; ; {
		if len(p)-at < headerLen {
			return p[:at]
		}
		n := int(p[at])<<16 | int(p[at+1])<<8 | int(p[at+2])
		if n > minFrameSize {
			// An error as soon as the header is read; of padded DATA that is one
			// byte more.
			return append(slices.Clip(p[:at+headerLen]), 0)
		}
		if len(p)-at < headerLen+n {
			return p[:at]
		}
		at += headerLen + n
	}
}

// listener notes what each stream of a Conn hears, in the twin's form.
type listener struct {
	streams map[uint32]*twinStream
	t       *testing.T
}

func (l *listener) Request(t *turn.Turn, s *Stream, fields []Field, end bool) {
	l.streams[s.ID()] = &twinStream{}
	s.Handle(l)
	l.Headers(t, s, fields, end)
}

func (l *listener) Headers(_ *turn.Turn, s *Stream, fields []Field, end bool) {
	x := l.streams[s.ID()]
	l.check(x, end)
	var hf []hpack.HeaderField
	for _, f := range fields {
		hf = append(hf, hpack.HeaderField{Name: string(f.Name), Value: string(f.Value)})
	}
	x.note(hf)
}

func (l *listener) Data(t *turn.Turn, s *Stream, p []byte, end bool) {
	x := l.streams[s.ID()]
	l.check(x, end)
	x.data = append(x.data, p...)
	s.Consume(t, len(p))
}

func (l *listener) check(x *twinStream, end bool) {
	if x.gone != "" || x.end {
		l.t.Error("event after the end or after Closed")
	}
	x.end = end
}

func (l *listener) Closed(_ *turn.Turn, s *Stream, err error) {
	x := l.streams[s.ID()]
	if x.gone != "" {
		l.t.Error("Closed twice")
	}
	switch e := err.(type) {
	case nil:
		x.gone = "ended"
	case *StreamError:
		x.gone = "reset"
		if e.Remote {
			x.gone = "peer"
		}
	case *GoAwayError:
		x.gone = "peer"
	default:
		x.gone = "fatal"
	}
}

func (l *listener) Left(*turn.Turn, *Stream)                    {}
func (l *listener) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (l *listener) Idle(*turn.Turn)                             {}

// wide are limits that a fuzzer does not reach; TestFloods is about those.
var wide = Limits{HeaderFields: 1 << 20, HeaderBlock: 1 << 20, Continuations: 1 << 20, EmptyData: 1 << 20, Resets: 1 << 20,
	Settings: 1 << 20, Pings: 1 << 20, Unknown: 1 << 20, Priority: 1 << 20, Windows: 1 << 20, Strays: 1 << 20, Unread: 1 << 30}

// seeds are the peer's half of ordinary conversations and of rude ones.
func seeds(client bool) [][]byte {
	op := func(typ, flags, id byte, payload string) []byte {
		return append([]byte{typ, flags, id, byte(len(payload))}, payload...)
	}
	var hb bytes.Buffer
	enc := hpack.NewEncoder(&hb)
	head := func(fields ...string) string {
		hb.Reset()
		for i := 0; i < len(fields); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return hb.String()
	}
	settings := op(frameSettings, 0, 0, "\x00\x04\x00\x01\x00\x00")
	ack := op(frameSettings, flagAck, 0, "")
	var first, connect string
	if client {
		first, connect = head(":status", "200", "content-length", "5"), head(":status", "200", "x", "y")
	} else {
		first = head(":method", "POST", ":scheme", "https", ":path", "/", ":authority", "a", "content-length", "5")
		connect = head(":method", "CONNECT", ":authority", "a:1")
	}
	return [][]byte{
		slices.Concat(settings, ack, op(frameHeaders, 4, 1, first), op(frameData, 0, 1, "he"), op(frameData, 1, 1, "llo")),
		slices.Concat(settings, ack, op(frameHeaders, 4, 1, first), op(frameData, 9, 1, "\x02hello\x00\x00")),
		slices.Concat(settings, op(frameHeaders, 4, 3, connect), op(frameData, 0, 3, "x"), op(frameRSTStream, 0, 3, "\x00\x00\x00\x08"), op(frameData, 0, 3, "x")),
		slices.Concat(settings, op(frameHeaders, 0, 1, first[:3]), op(frameContinuation, 4, 1, first[3:]), op(frameData, 0, 1, "hello"), op(frameHeaders, 5, 1, head("t", "v"))),
		slices.Concat(settings, op(frameHeaders, 5, 1, first), op(frameHeaders, 5, 3, connect), op(frameWindowUpdate, 0, 3, "\x00\x00\x00\x00")),
		slices.Concat(settings, op(frameHeaders, 4|flagPriority|flagPadded, 3, "\x01\x80\x00\x00\x03\x10"+connect+"\x00")),
		slices.Concat(settings, op(framePing, 0, 0, "12345678"), op(frameGoAway, 0, 0, "\x00\x00\x00\x01\x00\x00\x00\x00bye"), op(framePriority, 0, 5, "\x00\x00\x00\x03\x10")),
		slices.Concat(settings, op(frameHeaders, 5, 1, head("x", "y")), op(11, 0xff, 1, "unknown")),
		slices.Concat(settings, op(frameHeaders, 4, 1, first), op(frameData, 0, 1, "hello!"), op(frameData, 1, 1, "")),
		slices.Concat(settings, op(frameHeaders, 4, 5, connect), op(frameData, 1, 5, ""), op(frameData, 1, 5, ""), op(frameHeaders, 5, 5, connect)),
		slices.Concat(settings, op(0x80, 0, 0, "\x00\x00\x01\x00\x08\x00\x00\x00\x01\x00")),
	}
}

// FuzzFrames feeds a Conn, in pieces of any size, and lets its slow twin on top
// of http2.Framer say whether the connection is to survive and what each stream
// is to hear.
func FuzzFrames(f *testing.F) {
	for _, client := range []bool{false, true} {
		for _, s := range seeds(client) {
			f.Add(client, uint8(0), s)
			f.Add(client, uint8(1), s)
			f.Add(client, uint8(7), s)
		}
	}
	f.Fuzz(func(t *testing.T, client bool, step uint8, data []byte) {
		in := program(data)
		l := &listener{streams: map[uint32]*twinStream{}, t: t}
		w := newTwin(client, in)
		c := NewConn(&testSink{}, l, Options{Client: client, MaxStreams: 1 << 20, MaxHeaderList: 1 << 20, Limits: wide})
		var tu turn.Turn
		c.Start(&tu)
		if client {
			for i, method := range []string{"POST", "CONNECT", "HEAD"} {
				end := method == "HEAD"
				s, err := c.Open(&tu, l, []Field{NewField(":method", method)}, end)
				if err != nil {
					t.Fatal(err)
				}
				l.streams[s.ID()] = &twinStream{}
				w.max = uint32(2*i + 1)
				w.streams[w.max] = &twinStream{method: method, length: -1, window: w.initial, written: end}
			}
		}
		tu.End()
		feed := in
		if !client {
			feed = append([]byte(clientPreface), in...)
		}
		err := feedIn(c, feed, int(step))
		w.run()
		if w.unsure {
			c.Closed(&tu, io.EOF)
			tu.End()
			return
		}
		if (err != nil) != (w.fatal != "") {
			t.Fatalf("Feed: %v, the twin says %q", err, w.fatal)
		}
		compare(t, l.streams, w, err != nil)
		c.Closed(&tu, io.EOF)
		tu.End()
		for id, s := range l.streams {
			if s.gone == "" {
				t.Errorf("stream %d did not hear Closed", id)
			}
		}
		if got := c.recvWin + int64(c.recvOwed); err == nil && got != int64(c.o.ConnWindow) {
			t.Errorf("connection's window is %d, want %d", got, c.o.ConnWindow)
		}
	})
}

func feedIn(c *Conn, p []byte, step int) error {
	var tu turn.Turn
	if step == 0 {
		step = len(p)
	}
	for len(p) > 0 {
		n := min(step, len(p))
		err := c.Feed(&tu, p[:n])
		tu.End()
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func compare(t *testing.T, got map[uint32]*twinStream, w *twin, fatal bool) {
	t.Helper()
	for _, id := range slices.Sorted(maps.Keys(w.streams)) {
		want, have := w.streams[id], got[id]
		if have == nil {
			if want.log.Len() > 0 {
				t.Errorf("stream %d was not heard of; the twin has %s", id, want.log.String())
			}
			continue
		}
		if have.log.String() != want.log.String() || !bytes.Equal(have.data, want.data) {
			t.Errorf("stream %d heard\n%s%q, the twin\n%s%q", id, have.log.String(), have.data, want.log.String(), want.data)
		}
		if have.end != want.end {
			t.Errorf("stream %d: end %v, the twin says %v", id, have.end, want.end)
		}
		// A stream that the peer reset, and then used, was reset for us before.
		open := have.gone == "" || fatal && have.gone == "fatal"
		if open != (want.gone == "") {
			t.Errorf("stream %d: gone %q, the twin says %q", id, have.gone, want.gone)
		}
	}
	for id := range got {
		if w.streams[id] == nil {
			t.Errorf("the twin has no stream %d", id)
		}
	}
}

// FuzzHead judges heads against http2.Framer's own checks and the plain rules.
func FuzzHead(f *testing.F) {
	var hb bytes.Buffer
	for _, fields := range [][]string{
		getFields, connectFields, {":status: 200", "a: b"}, {"a: b"}, {"A: b"}, {"te: x"}, {":status: 200", ":path: /"},
		{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /", ":authority: a"}, {"content-length: 00"},
	} {
		hb.Reset()
		enc := hpack.NewEncoder(&hb)
		for _, x := range fields {
			i := strings.Index(x[1:], ":") + 1
			enc.WriteField(hpack.HeaderField{Name: x[:i], Value: strings.TrimSpace(x[i+1:])})
		}
		f.Add(bytes.Clone(hb.Bytes()))
	}
	f.Add([]byte("\x20\x3f\xe1\x1f\x40\x01a\x01b\x10\x01c\x00\x00\x81\xff"))
	f.Fuzz(func(t *testing.T, block []byte) {
		if len(block) > minFrameSize || lateUpdate(block) {
			return
		}
		o := Options{Limits: wide}
		o.fill()
		var h head
		h.init(&o)
		err := h.decode(block)
		defer h.release()

		var b bytes.Buffer
		fr := http2.NewFramer(&b, &b)
		fr.ReadMetaHeaders = hpack.NewDecoder(tableSize, nil)
		fr.MaxHeaderListSize = 1 << 20
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block})
		frame, ferr := fr.ReadFrame()
		// From a field that it refuses on, http2.Framer decodes no more, and so
		// sees no more errors of encoding either.
		if _, bad := ferr.(http2.ConnectionError); bad && err == nil || ferr == nil && err != nil {
			t.Fatalf("decode: %v, http2.Framer: %v", err, ferr)
		}
		if err != nil || h.tooLarge {
			return
		}
		if _, bad := ferr.(http2.StreamError); bad && h.request(false) == "" {
			t.Errorf("request %v is fine, http2.Framer says %v", h.fields, fr.ErrorDetail())
		} else if bad && h.response(false) == "" {
			t.Errorf("response %v is fine, http2.Framer says %v", h.fields, fr.ErrorDetail())
		} else if bad && h.trailers(true) == "" {
			t.Errorf("trailers %v are fine, http2.Framer says %v", h.fields, fr.ErrorDetail())
		}
		if mh, ok := frame.(*http2.MetaHeadersFrame); ok && ferr == nil {
			if got, want := fmt.Sprint(show(h.fields)), fmt.Sprint(showHpack(mh.Fields)); got != want {
				t.Errorf("fields %q, http2.Framer has %q", got, want)
			}
		}
		fields, _ := hpack.NewDecoder(tableSize, nil).DecodeFull(block)
		for kind, pair := range map[string][2]bool{
			"request":  {h.request(false) == "", new(twinStream).request(fields, false)},
			"response": {h.response(false) == "", new(twinStream).response(fields, false)},
			"trailers": {h.trailers(true) == "", trailersForm(fields)},
		} {
			if pair[0] != pair[1] {
				t.Errorf("as a %s %q is good: %v, by the plain rules: %v (%s)", kind, show(h.fields), pair[0], pair[1], h.bad)
			}
		}
	})
}

func showHpack(fields []hpack.HeaderField) string {
	var s []string
	for _, f := range fields {
		s = append(s, string(f.Name)+"="+string(f.Value))
	}
	return strings.Join(s, " ")
}
