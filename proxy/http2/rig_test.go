package http2

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A bufSink is where a connection writes.
type bufSink struct{ bytes.Buffer }

func (s *bufSink) Write(_ *turn.Turn, p []byte) { s.Buffer.Write(p) }
func (s *bufSink) Buffered() int                { return 0 }
func (s *bufSink) CloseWrite(*turn.Turn)        {}
func (s *bufSink) Abort(*turn.Turn, uint32)     {}

// A wire is a connection of ours, and x/net's frames on the other end of it.
type wire struct {
	t    testing.TB
	c    *h2.Conn
	tn   turn.Turn
	sink bufSink // what ours has written
	in   bytes.Buffer
	fw   *http2.Framer
	fr   *http2.Framer
	hb   bytes.Buffer
	he   *hpack.Encoder

	// What ours was told: of the stream, and its heads.
	s     *h2.Stream
	heard func(s *h2.Stream, fields []h2.Field, end bool)
}

func newWire(t testing.TB, client bool) *wire {
	w := &wire{t: t}
	w.c = h2.NewConn(&w.sink, w, h2.Options{Client: client, ConnectProtocol: true})
	w.fw = http2.NewFramer(&w.in, nil)
	w.fw.AllowIllegalWrites = true
	w.fr = http2.NewFramer(io.Discard, &w.sink)
	w.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.he = hpack.NewEncoder(&w.hb)
	w.c.Start(&w.tn)
	w.tn.End()
	if client {
		w.sink.Next(len(http2.ClientPreface))
	} else {
		w.in.WriteString(http2.ClientPreface)
	}
	w.fw.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	w.feed()
	w.frames()
	t.Cleanup(func() { w.c.Closed(&w.tn, io.EOF); w.tn.End() })
	return w
}

func (w *wire) feed() {
	w.c.Feed(&w.tn, w.in.Bytes())
	w.in.Reset()
	w.tn.End()
}

// do runs f in a turn.
func (w *wire) do(f func(tn *turn.Turn)) { f(&w.tn); w.tn.End() }

// head sends a head of "name: value" fields.
func (w *wire) head(id uint32, end bool, fields ...string) {
	w.hb.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ":") + 1
		w.he.WriteField(hpack.HeaderField{Name: f[:i], Value: strings.TrimPrefix(f[i+1:], " ")})
	}
	w.block(id, end, w.hb.Bytes())
}

func (w *wire) block(id uint32, end bool, block []byte) {
	w.fw.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: block})
	w.feed()
}

// frames returns what ours has written, but for SETTINGS and WINDOW_UPDATE.
func (w *wire) frames() (out []string) {
	w.t.Helper()
	for w.sink.Len() > 0 {
		f, err := w.fr.ReadFrame()
		if err != nil {
			w.t.Fatalf("written what http2.Framer does not read: %v (%v)", err, w.fr.ErrorDetail())
		}
		end := ""
		if h := f.Header(); h.Flags&http2.FlagDataEndStream != 0 {
			end = " end"
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			var s []string
			for _, x := range f.Fields {
				text := x.Name + "=" + x.Value
				if x.Sensitive {
					text += " (sensitive)"
				}
				s = append(s, text)
			}
			out = append(out, strings.Join(s, "|")+end)
		case *http2.DataFrame:
			out = append(out, "data "+string(f.Data())+end)
		case *http2.RSTStreamFrame:
			out = append(out, "reset "+f.ErrCode.String())
		}
	}
	return out
}

func (w *wire) want(frames ...string) {
	w.t.Helper()
	if got := w.frames(); strings.Join(got, "\n") != strings.Join(frames, "\n") {
		w.t.Fatalf("written\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(frames, "\n  "))
	}
}

func (w *wire) Request(_ *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	s.Handle(w)
	w.s = s
	w.heard(s, fields, end)
}
func (w *wire) GoneAway(*turn.Turn, uint32, uint32, string) {}
func (w *wire) Idle(*turn.Turn)                             {}
func (w *wire) Headers(_ *turn.Turn, s *h2.Stream, fields []h2.Field, end bool) {
	w.heard(s, fields, end)
}
func (w *wire) Data(*turn.Turn, *h2.Stream, []byte, bool) {}
func (w *wire) Left(*turn.Turn, *h2.Stream)               {}
func (w *wire) Closed(*turn.Turn, *h2.Stream, error)      {}

// lines writes a message's fields down.
func lines(h *message.Header) string { return string(h.AppendLines(nil)) }
