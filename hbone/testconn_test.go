package hbone

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A testConn is one end of a mesh connection that we did not write: crypto/tls
// and http2.Framer, driven by hand.
type testConn struct {
	t    *testing.T
	nc   net.Conn
	fr   *http2.Framer
	hbuf bytes.Buffer
	henc *hpack.Encoder
	set  []http2.Setting // what the other end announced
}

func newTestConn(t *testing.T, nc net.Conn) *testConn {
	nc.SetDeadline(time.Now().Add(patience))
	tc := &testConn{t: t, nc: nc, fr: http2.NewFramer(nc, nc)}
	tc.fr.AllowIllegalWrites = true
	tc.fr.SetMaxReadFrameSize(1 << 20)
	tc.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	tc.henc = hpack.NewEncoder(&tc.hbuf)
	t.Cleanup(func() { nc.Close() })
	return tc
}

// dialMesh connects to a server and says hello.
func dialMesh(t *testing.T, addr string, certs *Certificates) *testConn {
	t.Helper()
	nc, err := tls.Dial("tcp", addr, certs.ClientConfig([]peer.ID{testID(wayURI)}))
	if err != nil {
		t.Fatal(err)
	}
	tc := newTestConn(t, nc)
	tc.greet()
	return tc
}

// greet begins a client's connection: prefaces and SETTINGS of both.
func (tc *testConn) greet() {
	tc.t.Helper()
	if _, err := io.WriteString(tc.nc, http2.ClientPreface); err != nil {
		tc.t.Fatal(err)
	}
	tc.settle()
}

// settle exchanges SETTINGS.
func (tc *testConn) settle(settings ...http2.Setting) {
	tc.t.Helper()
	tc.fr.WriteSettings(settings...)
	f, ok := tc.next().(*http2.SettingsFrame)
	if !ok || f.IsAck() {
		tc.t.Fatalf("the connection begins with %v, want SETTINGS", f)
	}
	f.ForeachSetting(func(s http2.Setting) error { tc.set = append(tc.set, s); return nil })
	tc.fr.WriteSettingsAck()
}

// setting returns what the other end announced.
func (tc *testConn) setting(id http2.SettingID) uint32 {
	for _, s := range tc.set {
		if s.ID == id {
			return s.Val
		}
	}
	tc.t.Helper()
	tc.t.Fatalf("no setting %v", id)
	return 0
}

// next reads a frame.
func (tc *testConn) next() http2.Frame {
	tc.t.Helper()
	f, err := tc.fr.ReadFrame()
	if err != nil {
		tc.t.Fatalf("read: %v", err)
	}
	return f
}

// wanted reads frames up to one of type F; on the way only what is no news may
// come.
func wanted[F http2.Frame](tc *testConn) F {
	tc.t.Helper()
	for {
		switch f := tc.next().(type) {
		case F:
			if s, ok := any(f).(*http2.SettingsFrame); ok && s.IsAck() {
				continue
			}
			return f
		case *http2.WindowUpdateFrame:
		case *http2.SettingsFrame:
			if !f.IsAck() {
				tc.t.Fatalf("got %v, want %T", f, *new(F))
			}
		default:
			tc.t.Fatalf("got %v, want %T", f, *new(F))
		}
	}
}

// writeHeaders sends a head: name, value, name, value.
func (tc *testConn) writeHeaders(id uint32, end bool, fields ...string) {
	tc.t.Helper()
	tc.hbuf.Reset()
	for i := 0; i < len(fields); i += 2 {
		tc.henc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	err := tc.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: tc.hbuf.Bytes(), EndHeaders: true, EndStream: end})
	if err != nil {
		tc.t.Fatal(err)
	}
}

// connect sends a CONNECT, with more fields.
func (tc *testConn) connect(id uint32, authority string, fields ...string) {
	tc.t.Helper()
	tc.writeHeaders(id, false, append([]string{":method", "CONNECT", ":authority", authority}, fields...)...)
}

func (tc *testConn) writeData(id uint32, s string, end bool) {
	tc.t.Helper()
	if err := tc.fr.WriteData(id, end, []byte(s)); err != nil {
		tc.t.Fatal(err)
	}
}

// wantStatus wants a head on a stream.
func (tc *testConn) wantStatus(id uint32, status int, end bool) {
	tc.t.Helper()
	f := wanted[*http2.MetaHeadersFrame](tc)
	if got := f.PseudoValue("status"); f.StreamID != id || got != fmt.Sprint(status) || f.StreamEnded() != end {
		tc.t.Fatalf("got status %s on stream %d, end %v; want %d on %d, %v", got, f.StreamID, f.StreamEnded(), status, id, end)
	}
}

// wantData wants content on a stream, in however many frames.
func (tc *testConn) wantData(id uint32, want string, end bool) {
	tc.t.Helper()
	got := ""
	for {
		f := wanted[*http2.DataFrame](tc)
		got += string(f.Data())
		if f.StreamID != id || !strings.HasPrefix(want, got) {
			tc.t.Fatalf("got %q on stream %d, want %q on %d", got, f.StreamID, want, id)
		}
		if got == want && (f.StreamEnded() || !end) {
			if f.StreamEnded() != end {
				tc.t.Fatalf("stream %d ended, want it open", id)
			}
			return
		}
	}
}

func (tc *testConn) wantReset(id uint32, code http2.ErrCode) {
	tc.t.Helper()
	if f := wanted[*http2.RSTStreamFrame](tc); f.StreamID != id || f.ErrCode != code {
		tc.t.Fatalf("got reset of %d with %v, want of %d with %v", f.StreamID, f.ErrCode, id, code)
	}
}

func (tc *testConn) wantGoAway(last uint32, code http2.ErrCode, words string) {
	tc.t.Helper()
	f := wanted[*http2.GoAwayFrame](tc)
	if f.LastStreamID != last || f.ErrCode != code || !strings.Contains(string(f.DebugData()), words) {
		tc.t.Fatalf("got GOAWAY with last stream %d, %v %q; want %d, %v %q", f.LastStreamID, f.ErrCode, f.DebugData(), last, code, words)
	}
}

// wantPing wants a PING that is no answer, and answers it if asked to.
func (tc *testConn) wantPing(answer bool) {
	tc.t.Helper()
	f := wanted[*http2.PingFrame](tc)
	if f.IsAck() {
		tc.t.Fatal("got the answer to a PING, want a PING")
	}
	if answer {
		tc.fr.WritePing(true, f.Data)
	}
}

// wantQuiet sends PING and wants nothing before its answer: what was sent
// before has had no consequence.
func (tc *testConn) wantQuiet() {
	tc.t.Helper()
	data := [8]byte{'q', 'u', 'i', 'e', 't'}
	tc.fr.WritePing(false, data)
	if f := wanted[*http2.PingFrame](tc); !f.IsAck() || f.Data != data {
		tc.t.Fatalf("got %v, want the answer to PING", f)
	}
}

// wantEOF wants the orderly end of the connection.
func (tc *testConn) wantEOF() {
	tc.t.Helper()
	for {
		f, err := tc.fr.ReadFrame()
		if err == io.EOF {
			return
		}
		switch f.(type) {
		case *http2.WindowUpdateFrame, *http2.SettingsFrame:
			continue
		}
		tc.t.Fatalf("got %v, %v; want the end of the connection", f, err)
	}
}

// TestTestConn shows how it reads.
func TestTestConn(t *testing.T) {
	s := newServer(t)
	tc := dialMesh(t, s.mesh(), s.client(curlURI))
	tc.connect(1, "10.0.0.7:8080")
	tc.wantStatus(1, 200, false)
	tun := s.tunnel()
	tc.writeData(1, "hello", false)
	tun.want("data hello")
	tun.write("good day")
	tc.wantData(1, "good day", false)
	tun.closeWrite()
	tc.wantData(1, "", true)
	tc.writeData(1, "bye", true)
	tun.want("data bye", "end", "closed")
	tc.wantQuiet()
}
