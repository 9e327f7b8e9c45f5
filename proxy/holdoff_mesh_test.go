package proxy_test

import (
	"bufio"
	"io"
	"net"
	"testing"

	"github.com/sandwich-mesh/sandwich/internal/devmesh"
	"golang.org/x/net/http2"
)

// TestFloodInATunnel: a flood on the HTTP/2 connection in a tunnel ends it and
// counts once against the address of the mesh connection, which goes on. One
// that ends otherwise does not count, and no PROXY connection does.
func TestFloodInATunnel(t *testing.T) {
	a := newApp(t, func(nc *net.TCPConn, r *bufio.Reader) { io.Copy(nc, r) })
	m := start(t, portDoc(", appProtocol: http2"), devmesh.Options{App: a.everywhere})
	m.inModes(t, func(t *testing.T, mode devmesh.Mode) {
		st := m.Waypoint(mode).ServerStats()
		// end goes on sending after it has been told to stop.
		end := func(code http2.ErrCode, send func(fr *http2.Framer)) {
			t.Helper()
			nc := m.dial("a", mode)
			io.WriteString(nc, http2.ClientPreface)
			fr := http2.NewFramer(nc, nc)
			fr.AllowIllegalWrites = true
			fr.WriteSettings()
			send(fr)
			for {
				f, err := fr.ReadFrame()
				if err != nil {
					t.Fatalf("no GOAWAY: %v", err)
				}
				if g, ok := f.(*http2.GoAwayFrame); ok {
					if g.ErrCode != code {
						t.Errorf("got %v, want %v", g.ErrCode, code)
					}
					break
				}
			}
			send(fr)
			nc.CloseWrite()
			io.Copy(io.Discard, nc)
		}
		floods := func() int64 { return st.Floods.Load() }
		end(http2.ErrCodeProtocol, func(fr *http2.Framer) { fr.WriteWindowUpdate(0, 0) })
		if n := floods(); n != 0 {
			t.Errorf("%d floods, want none yet", n)
		}
		end(http2.ErrCodeEnhanceYourCalm, func(fr *http2.Framer) {
			for range 300 {
				fr.WriteSettings()
			}
		})
		want := int64(1)
		if mode == devmesh.Sandwich {
			want = 0
		}
		if n := floods(); n != want {
			t.Errorf("%d floods, want %d", n, want)
		}
	})
}
