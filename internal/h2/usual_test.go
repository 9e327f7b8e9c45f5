package h2

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"golang.org/x/net/http2"
)

// Most DATA is received by Conn.data and sent by Stream.Write alone. What these must
// leave to others is told here, and in every test of the package that feeds whole
// frames and writes.

func TestWholeFrameWithinAHead(t *testing.T) {
	tc := newServer(t, Options{})
	tc.serve(1)
	tc.fw.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: tc.block(":method: CONNECT", ":authority: a:1")})
	tc.fw.WriteData(1, false, []byte("x"))
	tc.wantConnError(CodeProtocol)
}

// A frame that came whole is progress: who owes the rest of another owes something
// new.
func TestWholeFramesAreFinished(t *testing.T) {
	tc := newServer(t, Options{})
	tc.serve(1)
	frame := func() []byte {
		tc.fw.WriteData(1, false, []byte("x"))
		return append([]byte(nil), tc.in.Bytes()...)
	}()
	head := frame[:5]
	tc.in.Reset()
	owes := func(p []byte) uint64 {
		tc.in.Write(p)
		tc.feed()
		return tc.c.owes.Load()
	}
	first := owes(head)
	if same := owes(nil); same != first || first == 0 {
		t.Errorf("owes %d, then %d; want the same", first, same)
	}
	if next := owes(bytes.Join([][]byte{frame[5:], frame, head}, nil)); next != first+2 {
		t.Errorf("owes %d behind two frames more, want %d", next, first+2)
	}
}

// Streams that receive whole frames are active ones, who share the window.
func TestWholeFramesCountAsActive(t *testing.T) {
	const active = 8
	tc := newServer(t, Options{})
	for i := range uint32(active) {
		tc.serve(2*i + 1)
	}
	p := strings.Repeat("x", 1<<10)
	for range 2 * shareCount / (active * len(p)) {
		for i := range uint32(active) {
			tc.fw.WriteData(2*i+1, false, []byte(p))
		}
		tc.feed()
		tc.sink.out.Reset()
	}
	if got := tc.c.share.streams; got != active {
		t.Errorf("%d streams are active, want %d", got, active)
	}
}

func TestWriteToWhatIsOver(t *testing.T) {
	t.Run("a stream that was reset", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		tc.do(func(t *turn.Turn) { s.Abort(t, CodeCancel) })
		tc.wantReset(1, CodeCancel)
		tc.write(s, "late")
		tc.wantIdle()
	})
	t.Run("a side that was ended", func(t *testing.T) {
		tc := newServer(t, Options{})
		s := tc.serve(1)
		tc.closeWrite(s)
		tc.wantData(1, "", true)
		tc.write(s, "late")
		tc.wantIdle()
	})
}

// Who has a window again comes before those who never waited.
func TestWriteOvertakesNobody(t *testing.T) {
	tc := newServer(t, Options{})
	tc.fw.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	tc.feed()
	want[*http2.SettingsFrame](tc)
	waits, other := tc.serve(1), tc.serve(3)
	tc.write(waits, strings.Repeat("x", defaultWindow)+"waits") // for the connection's window
	tc.dataOut()
	tc.do(func(tn *turn.Turn) {
		tc.fw.WriteWindowUpdate(0, 8)
		if err := tc.c.Feed(tn, tc.in.Bytes()); err != nil {
			t.Fatal(err)
		}
		tc.in.Reset()
		other.Write(tn, []byte("other"))
	})
	tc.wantData(1, "waits", false)
	tc.wantData(3, "oth", false)
}

// Many streams that write a little each stop where one that writes much does.
func TestWritesFillTheOutBuffer(t *testing.T) {
	tc := newServer(t, Options{})
	tc.fw.WriteWindowUpdate(0, 1<<30)
	tc.feed()
	const size = 12 << 10
	var all []*Stream
	for i := range uint32(2 * outCap / size) {
		all = append(all, tc.serve(2*i+1))
	}
	tc.sink.hold = true
	for _, s := range all {
		tc.write(s, strings.Repeat("x", size))
	}
	if n := tc.sink.held; n > outCap+len(all)*headerLen || n < outCap-size {
		t.Errorf("the sink holds %d, want about %d", n, outCap)
	}
}
