package h2

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// A breach is what a peer does, and what becomes of it: an error of one stream,
// of the connection, or none, which is the control that shows that the rest of
// the input is in order.
type breach struct {
	name   string
	do     func(tc *testConn)
	stream uint32 // reset with code
	conn   bool   // connection ends with code
	code   uint32
}

func (b breach) run(t *testing.T, tc *testConn) {
	t.Helper()
	b.do(tc)
	switch {
	case b.conn:
		tc.wantConnError(b.code)
	case b.stream != 0:
		tc.wantStreamError(b.stream, b.code)
	default:
		tc.feed()
		tc.wantAlive()
	}
}

// get opens stream id with a whole GET.
func get(tc *testConn, id uint32) { tc.writeHeaders(id, true, getFields...) }

// post opens stream id with a request whose content is still to come.
func post(tc *testConn, id uint32) { tc.writeHeaders(id, false, getFields...) }

// tunnel opens stream id with a CONNECT.
func tunnel(tc *testConn, id uint32) { tc.writeHeaders(id, false, connectFields...) }

// Frame types, lengths and places (RFC 9113, sections 4 and 6).
func TestFrameRules(t *testing.T) {
	prio := func(on uint32) []byte { return append(u32(on), 15) }
	for _, b := range []breach{
		{name: "DATA on stream 0", do: func(tc *testConn) { tc.raw(frameData, 0, 0, 1) }, conn: true, code: CodeProtocol},
		{name: "DATA on an open stream", do: func(tc *testConn) { post(tc, 1); tc.raw(frameData, 0, 1, 1) }},
		{name: "DATA padded", do: func(tc *testConn) { post(tc, 1); tc.raw(frameData, flagPadded, 1, 2, 'x', 0, 0) }},
		{name: "DATA all padding", do: func(tc *testConn) { post(tc, 1); tc.raw(frameData, flagPadded, 1, 2, 0, 0) }},
		{name: "DATA with too much padding", do: func(tc *testConn) { post(tc, 1); tc.raw(frameData, flagPadded, 1, 3, 0, 0) }, conn: true, code: CodeProtocol},
		{name: "DATA padded without length", do: func(tc *testConn) { post(tc, 1); tc.raw(frameData, flagPadded, 1) }, conn: true, code: CodeFrameSize},
		{name: "DATA of the longest size", do: func(tc *testConn) { post(tc, 1); tc.raw(frameData, 0, 1, make([]byte, minFrameSize)...) }},
		{name: "DATA too long", do: func(tc *testConn) { post(tc, 1); tc.raw(frameData, 0, 1, make([]byte, minFrameSize+1)...) }, conn: true, code: CodeFrameSize},
		{name: "unknown frame too long", do: func(tc *testConn) { tc.raw(0x42, 0, 1, make([]byte, minFrameSize+1)...) }, conn: true, code: CodeFrameSize},
		{name: "unknown frame", do: func(tc *testConn) { tc.raw(0x42, 0xff, 7, make([]byte, minFrameSize)...) }},
		{name: "HEADERS on stream 0", do: func(tc *testConn) { tc.writeBlock(0, true, tc.block(getFields...)) }, conn: true, code: CodeProtocol},
		{name: "HEADERS padded", do: func(tc *testConn) {
			tc.raw(frameHeaders, flagEndHeaders|flagEndStream|flagPadded, 1, slices.Concat([]byte{2}, tc.block(getFields...), []byte{0, 0})...)
		}},
		{name: "HEADERS with too much padding", do: func(tc *testConn) {
			block := tc.block(getFields...)
			tc.raw(frameHeaders, flagEndHeaders|flagEndStream|flagPadded, 1, append([]byte{byte(len(block) + 1)}, block...)...)
		}, conn: true, code: CodeProtocol},
		{name: "HEADERS padded without length", do: func(tc *testConn) { tc.raw(frameHeaders, flagEndHeaders|flagPadded, 1) }, conn: true, code: CodeFrameSize},
		{name: "HEADERS with priority", do: func(tc *testConn) {
			tc.raw(frameHeaders, flagEndHeaders|flagEndStream|flagPriority, 1, append(prio(3), tc.block(getFields...)...)...)
		}},
		{name: "HEADERS too short for priority", do: func(tc *testConn) { tc.raw(frameHeaders, flagEndHeaders|flagPriority, 1, 0, 0, 0, 0) }, conn: true, code: CodeFrameSize},
		{name: "HEADERS depends on itself", do: func(tc *testConn) {
			tc.raw(frameHeaders, flagEndHeaders|flagEndStream|flagPriority, 1, append(prio(1), tc.block(getFields...)...)...)
		}, stream: 1, code: CodeProtocol},
		{name: "PRIORITY on an idle stream", do: func(tc *testConn) { tc.raw(framePriority, 0, 1, prio(3)...) }},
		{name: "PRIORITY on stream 0", do: func(tc *testConn) { tc.raw(framePriority, 0, 0, prio(3)...) }, conn: true, code: CodeProtocol},
		{name: "PRIORITY too short, open", do: func(tc *testConn) { post(tc, 1); tc.raw(framePriority, 0, 1, 0, 0, 0, 3) }, stream: 1, code: CodeFrameSize},
		{name: "PRIORITY too short, idle", do: func(tc *testConn) { tc.raw(framePriority, 0, 1, 0, 0, 0, 3) }, conn: true, code: CodeFrameSize},
		{name: "PRIORITY depends on itself, open", do: func(tc *testConn) { post(tc, 1); tc.raw(framePriority, 0, 1, prio(1)...) }, stream: 1, code: CodeProtocol},
		{name: "PRIORITY depends on itself, idle", do: func(tc *testConn) { tc.raw(framePriority, 0, 1, prio(1)...) }, conn: true, code: CodeProtocol},
		{name: "RST_STREAM on stream 0", do: func(tc *testConn) { tc.raw(frameRSTStream, 0, 0, u32(0)...) }, conn: true, code: CodeProtocol},
		{name: "RST_STREAM on an idle stream", do: func(tc *testConn) { tc.raw(frameRSTStream, 0, 1, u32(0)...) }, conn: true, code: CodeProtocol},
		{name: "RST_STREAM too short", do: func(tc *testConn) { post(tc, 1); tc.raw(frameRSTStream, 0, 1, 0, 0, 0) }, conn: true, code: CodeFrameSize},
		{name: "RST_STREAM", do: func(tc *testConn) { post(tc, 1); tc.raw(frameRSTStream, 0, 1, u32(8)...) }},
		{name: "SETTINGS on a stream", do: func(tc *testConn) { tc.raw(frameSettings, 0, 1) }, conn: true, code: CodeProtocol},
		{name: "SETTINGS of 5 bytes", do: func(tc *testConn) { tc.raw(frameSettings, 0, 0, 0, 4, 0, 0, 0) }, conn: true, code: CodeFrameSize},
		{name: "SETTINGS acknowledgement with payload", do: func(tc *testConn) { tc.raw(frameSettings, flagAck, 0, 0, 4, 0, 0, 0, 0) }, conn: true, code: CodeFrameSize},
		{name: "SETTINGS acknowledged twice", do: func(tc *testConn) { tc.raw(frameSettings, flagAck, 0) }, conn: true, code: CodeProtocol},
		{name: "PUSH_PROMISE", do: func(tc *testConn) { post(tc, 1); tc.raw(framePushPromise, flagEndHeaders, 1, u32(2)...) }, conn: true, code: CodeProtocol},
		{name: "PING on a stream", do: func(tc *testConn) { tc.raw(framePing, 0, 1, make([]byte, 8)...) }, conn: true, code: CodeProtocol},
		{name: "PING too long", do: func(tc *testConn) { tc.raw(framePing, 0, 0, make([]byte, 9)...) }, conn: true, code: CodeFrameSize},
		{name: "PING answer that nobody asked for", do: func(tc *testConn) { tc.raw(framePing, flagAck, 0, make([]byte, 8)...) }},
		{name: "GOAWAY on a stream", do: func(tc *testConn) { tc.raw(frameGoAway, 0, 1, make([]byte, 8)...) }, conn: true, code: CodeProtocol},
		{name: "GOAWAY too short", do: func(tc *testConn) { tc.raw(frameGoAway, 0, 0, make([]byte, 7)...) }, conn: true, code: CodeFrameSize},
		{name: "GOAWAY with a rising last stream", do: func(tc *testConn) {
			tc.fw.WriteGoAway(3, 0, nil)
			tc.fw.WriteGoAway(5, 0, nil)
		}, conn: true, code: CodeProtocol},
		{name: "GOAWAY with a falling last stream", do: func(tc *testConn) {
			tc.fw.WriteGoAway(5, 0, nil)
			tc.fw.WriteGoAway(3, 0, nil)
		}},
		{name: "WINDOW_UPDATE too short", do: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, 0, 0, 0, 1) }, conn: true, code: CodeFrameSize},
		{name: "WINDOW_UPDATE of 0", do: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, 0, u32(0)...) }, conn: true, code: CodeProtocol},
		{name: "WINDOW_UPDATE of 0, stream", do: func(tc *testConn) { post(tc, 1); tc.raw(frameWindowUpdate, 0, 1, u32(0)...) }, stream: 1, code: CodeProtocol},
		{name: "WINDOW_UPDATE with the reserved bit", do: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, 0, u32(1<<31|1)...) }},
		{name: "WINDOW_UPDATE on an idle stream", do: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, 1, u32(1)...) }, conn: true, code: CodeProtocol},
		{name: "window overflow", do: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, 0, u32(maxWindow)...) }, conn: true, code: CodeFlowControl},
		{name: "window just full", do: func(tc *testConn) { tc.raw(frameWindowUpdate, 0, 0, u32(maxWindow-defaultWindow)...) }},
		{name: "window overflow, stream", do: func(tc *testConn) { post(tc, 1); tc.raw(frameWindowUpdate, 0, 1, u32(maxWindow)...) }, stream: 1, code: CodeFlowControl},
		{name: "window just full, stream", do: func(tc *testConn) { post(tc, 1); tc.raw(frameWindowUpdate, 0, 1, u32(maxWindow-defaultWindow)...) }},
		{name: "window overflow by SETTINGS", do: func(tc *testConn) {
			post(tc, 1)
			tc.raw(frameWindowUpdate, 0, 1, u32(maxWindow-defaultWindow)...)
			tc.fw.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: defaultWindow + 1})
		}, conn: true, code: CodeFlowControl},
		{name: "CONTINUATION that continues nothing", do: func(tc *testConn) { tc.fw.WriteContinuation(1, true, tc.block(getFields...)) }, conn: true, code: CodeProtocol},
		{name: "CONTINUATION after END_HEADERS", do: func(tc *testConn) { post(tc, 1); tc.fw.WriteContinuation(1, true, tc.block("a: b")) }, conn: true, code: CodeProtocol},
		{name: "CONTINUATION on stream 0", do: func(tc *testConn) { tc.fw.WriteContinuation(0, true, nil) }, conn: true, code: CodeProtocol},
	} {
		t.Run(b.name, func(t *testing.T) { b.run(t, newServer(t, Options{})) })
	}
}

// A head in pieces, and what may not come between (section 6.10).
func TestContinuation(t *testing.T) {
	pieces := func(between func(tc *testConn)) func(tc *testConn) {
		return func(tc *testConn) {
			block := tc.block(getFields...)
			tc.raw(frameHeaders, flagEndStream, 1, block[:3]...)
			tc.fw.WriteContinuation(1, false, block[3:5])
			between(tc)
			tc.fw.WriteContinuation(1, true, block[5:])
		}
	}
	for _, b := range []breach{
		{name: "nothing between", do: pieces(func(*testConn) {})},
		{name: "an empty one", do: pieces(func(tc *testConn) { tc.fw.WriteContinuation(1, false, nil) })},
		{name: "DATA", do: pieces(func(tc *testConn) { tc.raw(frameData, 0, 1, 'x') }), conn: true, code: CodeProtocol},
		{name: "PING", do: pieces(func(tc *testConn) { tc.fw.WritePing(false, [8]byte{}) }), conn: true, code: CodeProtocol},
		{name: "an unknown frame", do: pieces(func(tc *testConn) { tc.raw(0x42, 0, 1) }), conn: true, code: CodeProtocol},
		{name: "HEADERS", do: pieces(func(tc *testConn) { tc.raw(frameHeaders, flagEndHeaders, 1) }), conn: true, code: CodeProtocol},
		{name: "another stream's", do: pieces(func(tc *testConn) { tc.fw.WriteContinuation(3, true, nil) }), conn: true, code: CodeProtocol},
	} {
		t.Run(b.name, func(t *testing.T) {
			tc := newServer(t, Options{})
			b.run(t, tc)
			if !b.conn {
				tc.wantEvents("request 1 :method=GET :scheme=http :path=/ :authority=a end")
			}
		})
	}
}

func TestSettingsRules(t *testing.T) {
	set := func(id uint16, v uint32) func(tc *testConn) {
		return func(tc *testConn) { tc.fw.WriteSettings(http2.Setting{ID: http2.SettingID(id), Val: v}) }
	}
	for _, b := range []breach{
		{name: "ENABLE_PUSH 0", do: set(settingEnablePush, 0)},
		{name: "ENABLE_PUSH 1", do: set(settingEnablePush, 1)},
		{name: "ENABLE_PUSH 2", do: set(settingEnablePush, 2), conn: true, code: CodeProtocol},
		{name: "window 2^31-1", do: set(settingWindow, maxWindow)},
		{name: "window 2^31", do: set(settingWindow, maxWindow+1), conn: true, code: CodeFlowControl},
		{name: "frame 16383", do: set(settingMaxFrame, minFrameSize-1), conn: true, code: CodeProtocol},
		{name: "frame 16384", do: set(settingMaxFrame, minFrameSize)},
		{name: "frame 2^24-1", do: set(settingMaxFrame, maxFrameSize)},
		{name: "frame 2^24", do: set(settingMaxFrame, maxFrameSize+1), conn: true, code: CodeProtocol},
		{name: "frame 0", do: set(settingMaxFrame, 0), conn: true, code: CodeProtocol},
		{name: "CONNECT protocol 1", do: set(settingConnectProtocol, 1)},
		{name: "CONNECT protocol 2", do: set(settingConnectProtocol, 2), conn: true, code: CodeProtocol},
		{name: "CONNECT protocol taken back", do: func(tc *testConn) {
			set(settingConnectProtocol, 1)(tc)
			set(settingConnectProtocol, 0)(tc)
		}, conn: true, code: CodeProtocol},
		{name: "table 0", do: set(settingTableSize, 0)},
		{name: "table 2^32-1", do: set(settingTableSize, 1<<32-1)},
		{name: "unknown", do: set(0xbeef, 1)},
	} {
		t.Run(b.name, func(t *testing.T) { b.run(t, newServer(t, Options{})) })
	}
	t.Run("server that enables push", func(t *testing.T) {
		tc := newClient(t, Options{})
		set(settingEnablePush, 1)(tc)
		tc.wantConnError(CodeProtocol)
	})
}

// The first bytes of a connection (section 3.4).
func TestPreface(t *testing.T) {
	start := func(t *testing.T) *testConn {
		tc := newTestConn(t, Options{})
		tc.do(tc.c.Start)
		tc.wantStart()
		return tc
	}
	t.Run("bytewise", func(t *testing.T) {
		tc := start(t)
		for _, b := range []byte(clientPreface) {
			tc.in.WriteByte(b)
			tc.feed()
		}
		tc.fw.WriteSettings()
		tc.feed()
		want[*http2.SettingsFrame](tc)
		tc.wantAlive()
	})
	t.Run("HTTP/1.1", func(t *testing.T) {
		tc := start(t)
		tc.in.WriteString("GET / HTTP/1.1\r\n")
		tc.wantConnError(CodeProtocol)
	})
	for _, b := range []breach{
		{name: "PING first", do: func(tc *testConn) { tc.fw.WritePing(false, [8]byte{}) }, conn: true, code: CodeProtocol},
		{name: "acknowledgement first", do: func(tc *testConn) { tc.fw.WriteSettingsAck() }, conn: true, code: CodeProtocol},
	} {
		t.Run(b.name, func(t *testing.T) {
			tc := start(t)
			tc.in.WriteString(clientPreface)
			b.run(t, tc)
		})
	}
}

func (tc *testConn) wantStart() {
	tc.t.Helper()
	want[*http2.SettingsFrame](tc)
	want[*http2.WindowUpdateFrame](tc)
}

// What may come in which state of a stream (section 5.1), and stream numbers
// (section 5.1.1).
func TestStreamStates(t *testing.T) {
	closed := func(tc *testConn) { // by END_STREAM both ways
		get(tc, 1)
		tc.sendHeaders(tc.streams[1], true, ok200...)
		want[*http2.MetaHeadersFrame](tc)
	}
	reset := func(tc *testConn) { // by the peer
		post(tc, 1)
		tc.fw.WriteRSTStream(1, http2.ErrCodeCancel)
		tc.feed()
	}
	ours := func(tc *testConn) { // by us
		post(tc, 1)
		tc.abort(tc.streams[1], CodeCancel)
		tc.wantReset(1, CodeCancel)
	}
	data := func(tc *testConn) { tc.fw.WriteData(1, true, []byte("x")) }
	head := func(tc *testConn) { tc.writeBlock(1, true, tc.block(getFields...)) }
	window := func(tc *testConn) { tc.fw.WriteWindowUpdate(1, 1) }
	rst := func(tc *testConn) { tc.fw.WriteRSTStream(1, 0) }
	both := func(a, b func(*testConn)) func(*testConn) { return func(tc *testConn) { a(tc); b(tc) } }
	end := func(tc *testConn) { get(tc, 1) }
	for _, b := range []breach{
		{name: "idle: DATA", do: data, conn: true, code: CodeProtocol},
		{name: "half closed: DATA", do: both(end, data), stream: 1, code: CodeStreamClosed},
		{name: "half closed: HEADERS", do: both(end, head), stream: 1, code: CodeStreamClosed},
		{name: "half closed: WINDOW_UPDATE", do: both(end, window)},
		{name: "half closed: RST_STREAM", do: both(end, rst)},
		{name: "closed: DATA", do: both(closed, data), stream: 1, code: CodeStreamClosed},
		{name: "closed: HEADERS", do: both(closed, head), conn: true, code: CodeStreamClosed},
		{name: "closed: WINDOW_UPDATE", do: both(closed, window)},
		{name: "closed: RST_STREAM", do: both(closed, rst)},
		{name: "closed: DATA twice is reset once", do: both(closed, func(tc *testConn) { data(tc); data(tc) }), stream: 1, code: CodeStreamClosed},
		{name: "peer reset: DATA", do: both(reset, data), stream: 1, code: CodeStreamClosed},
		{name: "peer reset: HEADERS", do: both(reset, head), conn: true, code: CodeStreamClosed},
		{name: "peer reset: WINDOW_UPDATE", do: both(reset, window)},
		{name: "we reset: DATA", do: both(ours, data)},
		{name: "we reset: HEADERS", do: both(ours, head)},
		{name: "we reset: WINDOW_UPDATE", do: both(ours, window)},
		{name: "we reset: RST_STREAM", do: both(ours, rst)},
		{name: "even number", do: func(tc *testConn) { tc.writeBlock(2, true, tc.block(getFields...)) }, conn: true, code: CodeProtocol},
		{name: "rising numbers", do: func(tc *testConn) { get(tc, 3); get(tc, 9) }},
		{name: "falling numbers", do: func(tc *testConn) { get(tc, 5); tc.writeBlock(3, true, tc.block(getFields...)) }, conn: true, code: CodeProtocol},
		{name: "DATA on a stream passed over", do: func(tc *testConn) { get(tc, 5); tc.fw.WriteData(3, true, nil) }, stream: 3, code: CodeStreamClosed},
	} {
		t.Run(b.name, func(t *testing.T) { b.run(t, newServer(t, Options{})) })
	}
}

// The same for a client's streams.
func TestClientStreamStates(t *testing.T) {
	open := func(tc *testConn) {
		tc.open(true, getHead...)
		want[*http2.MetaHeadersFrame](tc)
	}
	head := func(id uint32, end bool, status string) func(tc *testConn) {
		return func(tc *testConn) { tc.writeBlock(id, end, tc.block(":status: "+status)) }
	}
	then := func(steps ...func(*testConn)) func(*testConn) {
		return func(tc *testConn) {
			for _, s := range steps {
				s(tc)
			}
		}
	}
	data := func(tc *testConn) { tc.fw.WriteData(1, false, []byte("x")) }
	for _, b := range []breach{
		{name: "idle: HEADERS", do: head(1, true, "200"), conn: true, code: CodeProtocol},
		{name: "even: HEADERS", do: head(2, true, "200"), conn: true, code: CodeProtocol},
		{name: "open: head", do: then(open, head(1, true, "200"))},
		{name: "open: informational heads", do: then(open, head(1, false, "103"), head(1, false, "100"), head(1, false, "200"), data)},
		{name: "informational head that ends", do: then(open, head(1, true, "103")), stream: 1, code: CodeProtocol},
		{name: "status 101", do: then(open, head(1, false, "101")), stream: 1, code: CodeProtocol},
		{name: "DATA before the head", do: then(open, data), stream: 1, code: CodeProtocol},
		{name: "DATA after an informational head", do: then(open, head(1, false, "103"), data), stream: 1, code: CodeProtocol},
		{name: "two final heads", do: then(open, head(1, false, "200"), head(1, false, "200")), stream: 1, code: CodeProtocol},
		{name: "closed: HEADERS", do: then(open, head(1, true, "200"), head(1, true, "200")), conn: true, code: CodeStreamClosed},
		{name: "closed: DATA", do: then(open, head(1, true, "200"), data), stream: 1, code: CodeStreamClosed},
		{name: "PUSH_PROMISE", do: then(open, func(tc *testConn) {
			tc.raw(framePushPromise, flagEndHeaders, 1, append(u32(2), tc.block(getFields...)...)...)
		}), conn: true, code: CodeProtocol},
	} {
		t.Run(b.name, func(t *testing.T) { b.run(t, newClient(t, Options{})) })
	}
}

// Malformed heads are errors of their stream and never reach a handler
// (section 8.1.1).
func TestRequestForm(t *testing.T) {
	const m, s, p, a = ":method: GET", ":scheme: http", ":path: /", ":authority: a"
	long := strings.Repeat("x", 200)
	for _, tt := range []struct {
		name   string
		fields []string
		bad    bool
	}{
		{"control", []string{m, s, p, a, "x-y: z", "te: trailers", "cookie: a=b", "x-empty:"}, false},
		{"no authority", []string{m, s, p}, false},
		{"obs-text in a value", []string{m, s, p, a, "x: \xff\x80"}, false},
		{"tab and space inside a value", []string{m, s, p, a, "x: a\t b"}, false},
		{"OPTIONS *", []string{":method: OPTIONS", s, ":path: *", a}, false},
		{"other scheme, other path", []string{m, ":scheme: coap", ":path: x", a}, false},
		{"CONNECT", []string{":method: CONNECT", a}, false},
		{"CONNECT with fields", []string{":method: CONNECT", a, "baggage: " + long, "content-length: 5"}, false},
		{"GET *", []string{m, s, ":path: *", a}, true},
		{"upper case name", []string{m, s, p, a, "X-y: z"}, true},
		{"space in a name", []string{m, s, p, a, "x y: z"}, true},
		{"colon in a name", []string{m, s, p, a, "x::y"}, false}, // name x, value :y
		{"empty name", []string{m, s, p, a, "\x00: z"}, true},
		{"NUL in a value", []string{m, s, p, a, "x: a\x00b"}, true},
		{"CR in a value", []string{m, s, p, a, "x: a\rb"}, true},
		{"LF in a value", []string{m, s, p, a, "x: a\nb"}, true},
		{"DEL in a value", []string{m, s, p, a, "x: a\x7fb"}, true},
		{"space before a value", []string{m, s, p, a, "x:  a"}, true},
		{"tab behind a value", []string{m, s, p, a, "x: a\t"}, true},
		{"no method", []string{s, p, a}, true},
		{"no scheme", []string{m, p, a}, true},
		{"no path", []string{m, s, a}, true},
		{"empty path", []string{m, s, ":path:", a}, true},
		{"path without slash", []string{m, s, ":path: x", a}, true},
		{"space in path", []string{m, s, ":path: /a HTTP/1.1", a}, true},
		{"space in method", []string{":method: GET /", s, p, a}, true},
		{"empty method", []string{":method:", s, p, a}, true},
		{"empty authority", []string{m, s, p, ":authority:"}, true},
		{"user in authority", []string{m, s, p, ":authority: u@a"}, true},
		{"method twice", []string{m, m, s, p, a}, true},
		{"scheme twice", []string{m, s, s, p, a}, true},
		{"path twice", []string{m, s, p, p, a}, true},
		{"authority twice", []string{m, s, p, a, a}, true},
		{"status in a request", []string{m, s, p, a, ":status: 200"}, true},
		{"unknown pseudo-header field", []string{m, s, p, a, ":x: y"}, true},
		{"pseudo-header field after a regular one", []string{m, s, p, "x: y", a}, true},
		{"connection", []string{m, s, p, a, "connection: close"}, true},
		{"proxy-connection", []string{m, s, p, a, "proxy-connection: keep-alive"}, true},
		{"keep-alive", []string{m, s, p, a, "keep-alive: 1"}, true},
		{"transfer-encoding", []string{m, s, p, a, "transfer-encoding: chunked"}, true},
		{"upgrade", []string{m, s, p, a, "upgrade: h2c"}, true},
		{"te", []string{m, s, p, a, "te: gzip"}, true},
		{"te with more", []string{m, s, p, a, "te: trailers, gzip"}, true},
		{"content-length no number", []string{m, s, p, a, "content-length: x"}, true},
		{"content-length with sign", []string{m, s, p, a, "content-length: +0"}, true},
		{"content-length twice", []string{m, s, p, a, "content-length: 0", "content-length: 0"}, true},
		{"content-length 2^63", []string{m, s, p, a, "content-length: 9223372036854775808"}, true},
		{"content-length without content", []string{m, s, p, a, "content-length: 1"}, true},
		{"content-length 0", []string{m, s, p, a, "content-length: 0"}, false},
		{"CONNECT without authority", []string{":method: CONNECT"}, true},
		{"CONNECT with path", []string{":method: CONNECT", p, a}, true},
		{"CONNECT with scheme", []string{":method: CONNECT", s, a}, true},
		{"CONNECT with scheme and path", []string{":method: CONNECT", s, p, a}, true},
		{"CONNECT with empty authority", []string{":method: CONNECT", ":authority:"}, true},
		{"extended CONNECT not allowed", []string{":method: CONNECT", ":protocol: websocket", s, p, a}, true},
		{"nothing", nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tc := newServer(t, Options{})
			tc.writeBlock(1, true, tc.block(tt.fields...))
			if !tt.bad {
				tc.feed()
				tc.wantIdle()
				if len(tc.events) != 1 {
					t.Fatalf("events %q, want one request", tc.events)
				}
				return
			}
			tc.wantStreamError(1, CodeProtocol)
			tc.wantEvents()
			if got := tc.c.Stats().Malformed; got != 1 {
				t.Errorf("Malformed = %d, want 1", got)
			}
			// The connection is well: the same peer may go on.
			get(tc, 3)
			tc.wantEvents("request 3 :method=GET :scheme=http :path=/ :authority=a end")
		})
	}
}

func TestExtendedConnect(t *testing.T) {
	o := Options{ConnectProtocol: true}
	ws := []string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /chat", ":authority: a"}
	t.Run("allowed", func(t *testing.T) {
		tc := newServer(t, o)
		tc.writeHeaders(1, false, ws...)
		tc.wantEvents("request 1 :method=CONNECT :protocol=websocket :scheme=http :path=/chat :authority=a")
	})
	for name, fields := range map[string][]string{
		"without path": {":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a"},
		"with GET":     {":method: GET", ":protocol: websocket", ":scheme: http", ":path: /", ":authority: a"},
	} {
		t.Run(name, func(t *testing.T) {
			tc := newServer(t, o)
			tc.writeBlock(1, false, tc.block(fields...))
			tc.wantStreamError(1, CodeProtocol)
		})
	}
	t.Run("client learns", func(t *testing.T) {
		if newClient(t, Options{}).c.ConnectProtocol() {
			t.Error("ConnectProtocol before the peer offered it")
		}
		tc := newClient(t, Options{}, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
		if !tc.c.ConnectProtocol() {
			t.Error("ConnectProtocol = false, want true")
		}
	})
}

func TestResponseForm(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fields []string
		bad    bool
	}{
		{"control", []string{":status: 200", "x: y"}, false},
		{"status 999", []string{":status: 999"}, false},
		{"no status", []string{"x: y"}, true},
		{"status of two digits", []string{":status: 20"}, true},
		{"status of four digits", []string{":status: 0200"}, true},
		{"status 099", []string{":status: 099"}, true},
		{"status no number", []string{":status: 2x0"}, true},
		{"status twice", []string{":status: 200", ":status: 200"}, true},
		{"status behind a field", []string{"x: y", ":status: 200"}, true},
		{"method in a response", []string{":status: 200", ":method: GET"}, true},
		{"connection", []string{":status: 200", "connection: close"}, true},
		{"content-length without content", []string{":status: 200", "content-length: 1"}, true},
		{"content-length with 304", []string{":status: 304", "content-length: 1"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tc := newClient(t, Options{})
			tc.open(true, getHead...)
			want[*http2.MetaHeadersFrame](tc)
			tc.writeBlock(1, true, tc.block(tt.fields...))
			if tt.bad {
				tc.wantStreamError(1, CodeProtocol)
				if len(tc.events) != 2 || !strings.HasPrefix(tc.events[0], "closed 1: stream error PROTOCOL_ERROR: ") {
					t.Errorf("events %q, want closed and idle", tc.events)
				}
				return
			}
			tc.feed()
			tc.wantIdle()
			tc.wantEvents("head 1 "+strings.ReplaceAll(strings.Join(tt.fields, " "), ": ", "=")+" end", "closed 1", "idle")
		})
	}
}

func TestTrailers(t *testing.T) {
	for _, b := range []breach{
		{name: "control", do: func(tc *testConn) { post(tc, 1); tc.writeBlock(1, true, tc.block("x: y")) }},
		{name: "without END_STREAM", do: func(tc *testConn) { post(tc, 1); tc.writeBlock(1, false, tc.block("x: y")) }, stream: 1, code: CodeProtocol},
		{name: "with a pseudo-header field", do: func(tc *testConn) { post(tc, 1); tc.writeBlock(1, true, tc.block(":path: /")) }, stream: 1, code: CodeProtocol},
		{name: "with a connection-specific field", do: func(tc *testConn) { post(tc, 1); tc.writeBlock(1, true, tc.block("upgrade: x")) }, stream: 1, code: CodeProtocol},
		{name: "in a tunnel", do: func(tc *testConn) { tunnel(tc, 1); tc.writeBlock(1, true, tc.block("x: y")) }, stream: 1, code: CodeProtocol},
	} {
		t.Run(b.name, func(t *testing.T) {
			tc := newServer(t, Options{})
			b.run(t, tc)
			if b.stream == 0 {
				tc.wantEvents("request 1 :method=GET :scheme=http :path=/ :authority=a", "head 1 x=y end")
			}
		})
	}
	t.Run("answer in a tunnel", func(t *testing.T) {
		for status, bad := range map[string]bool{"200": true, "400": false} {
			tc := newClient(t, Options{})
			tc.open(false, connectHead...)
			want[*http2.MetaHeadersFrame](tc)
			tc.writeHeaders(1, false, ":status: "+status)
			tc.writeBlock(1, true, tc.block("x: y"))
			if bad {
				tc.wantStreamError(1, CodeProtocol)
			} else {
				tc.feed()
				tc.wantEvents("head 1 :status="+status, "head 1 x=y end")
			}
		}
	})
}

// Content must have the length that was announced (section 8.1.1).
func TestContentLength(t *testing.T) {
	for _, tt := range []struct {
		name, head string
		data       []string
		end        string // the last piece
		bad        bool
	}{
		{"exact", "content-length: 5", []string{"he"}, "llo", false},
		{"empty end", "content-length: 5", []string{"hello"}, "", false},
		{"none announced", "x: y", []string{"hello"}, "", false},
		{"short", "content-length: 5", []string{"he"}, "ll", true},
		{"long", "content-length: 5", []string{"he"}, "llo!", true},
		{"long before the end", "content-length: 5", []string{"hello!"}, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tc := newServer(t, Options{})
			tc.writeHeaders(1, false, append(slices.Clone(getFields), tt.head)...)
			for _, d := range tt.data {
				tc.fw.WriteData(1, false, []byte(d))
			}
			tc.fw.WriteData(1, true, []byte(tt.end))
			if tt.bad {
				tc.wantStreamError(1, CodeProtocol)
				for _, e := range tc.events {
					if strings.HasSuffix(e, " end") {
						t.Errorf("event %q: the end of a cut message was delivered", e)
					}
				}
				return
			}
			tc.feed()
			tc.wantIdle()
		})
	}
	t.Run("trailers before all of it", func(t *testing.T) {
		tc := newServer(t, Options{})
		tc.writeHeaders(1, false, append(slices.Clone(getFields), "content-length: 5")...)
		tc.writeBlock(1, true, tc.block("x: y"))
		tc.wantStreamError(1, CodeProtocol)
	})
	t.Run("HEAD", func(t *testing.T) {
		tc := newClient(t, Options{})
		tc.open(true, NewField(":method", "HEAD"), getHead[1], getHead[2], getHead[3])
		want[*http2.MetaHeadersFrame](tc)
		tc.writeHeaders(1, true, ":status: 200", "content-length: 5")
		tc.wantEvents("head 1 :status=200 content-length=5 end", "closed 1", "idle")
	})
	t.Run("CONNECT", func(t *testing.T) {
		tc := newClient(t, Options{})
		tc.open(false, connectHead...)
		want[*http2.MetaHeadersFrame](tc)
		tc.writeHeaders(1, false, ":status: 200", "content-length: 1")
		tc.writeData(1, "more than one", false)
		tc.wantIdle()
	})
}
