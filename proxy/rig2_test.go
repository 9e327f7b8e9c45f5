package proxy

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// shop2 adds services of HTTP/2 to the shop: of their own, and behind a service
// of HTTP/1 and the other way round.
const shop2 = shop + `
- {name: a-2b, address: 10.1.0.9, serviceAccount: a}
httpRoutes:
- {name: to-two, parentRefs: [{group: "", kind: Service, name: to-two, port: 80}], rules: [{backendRefs: [{name: two, port: 80}]}]}
- {name: to-one, parentRefs: [{group: "", kind: Service, name: to-one, port: 80}], rules: [{backendRefs: [{name: one, port: 80}]}]}
`

// doc2 is shop2, with what else the only rule of service two says.
func doc2(rule string) string {
	services := `
- {name: two, addresses: [10.96.0.4], ports: [{port: 80, targetPort: 9080, appProtocol: http2}], endpoints: [{workload: a-1}]}
- {name: both, addresses: [10.96.0.7], ports: [{port: 80, targetPort: 9080, appProtocol: grpc}], endpoints: [{workload: a-1}, {workload: a-2}]}
- {name: gone, addresses: [10.96.0.8], ports: [{port: 80, targetPort: 9080, appProtocol: grpc}]}
- {name: to-two, addresses: [10.96.0.5], ports: [{port: 80, appProtocol: http}]}
- {name: to-one, addresses: [10.96.0.6], ports: [{port: 80, appProtocol: http2}]}
workloads:`
	doc := strings.Replace(shop2, "\nworkloads:", services, 1)
	if rule != "" {
		doc += `- {name: two, parentRefs: [{group: "", kind: Service, name: two, port: 80}], rules: [{matches: [{path: {type: PathPrefix, value: /}}], backendRefs: [{name: two, port: 80}], ` + rule + "}]}\n"
	}
	return doc
}

const (
	serviceTwo   = "10.96.0.4:80"
	serviceToTwo = "10.96.0.5:80"
	serviceToOne = "10.96.0.6:80"
	serviceBoth  = "10.96.0.7:80"
	serviceGone2 = "10.96.0.8:80"
)

// A talker is one end of an HTTP/2 connection, played by hand on x/net's frames.
type talker struct {
	t    *testing.T
	out  bytes.Buffer // frames to be sent
	fw   *http2.Framer
	hbuf bytes.Buffer
	henc *hpack.Encoder
	in   bytes.Buffer // what has come
	fr   *http2.Framer
	got  int // bytes of DATA
}

func newTalker(t *testing.T) *talker {
	k := &talker{t: t}
	k.fw = http2.NewFramer(&k.out, nil)
	k.fw.AllowIllegalWrites = true
	k.henc = hpack.NewEncoder(&k.hbuf)
	k.fr = http2.NewFramer(io.Discard, &k.in)
	k.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return k
}

// head queues a head of "name: value" fields.
func (k *talker) head(id uint32, end bool, fields ...string) {
	k.hbuf.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ":") + 1
		k.henc.WriteField(hpack.HeaderField{Name: f[:i], Value: strings.TrimPrefix(f[i+1:], " ")})
	}
	k.fw.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: k.hbuf.Bytes()})
}

func (k *talker) data(id uint32, text string, end bool) { k.fw.WriteData(id, end, []byte(text)) }
func (k *talker) reset(id uint32, code http2.ErrCode)   { k.fw.WriteRSTStream(id, code) }

// show writes a frame down; "" for one that is of no interest.
func (k *talker) show(f http2.Frame) string {
	end := ""
	if h := f.Header(); (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) && h.Flags&http2.FlagDataEndStream != 0 {
		end = " end"
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		var s []string
		for _, x := range f.Fields {
			if x.Name != "x-request-id" { // the proxy's, and another each time
				s = append(s, x.Name+"="+x.Value)
			}
		}
		return fmt.Sprintf("head %d %s%s", f.StreamID, strings.Join(s, " "), end)
	case *http2.DataFrame:
		k.got += len(f.Data())
		if len(f.Data()) > 100 {
			return fmt.Sprintf("data %d %d bytes%s", f.StreamID, len(f.Data()), end)
		}
		return fmt.Sprintf("data %d %q%s", f.StreamID, f.Data(), end)
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("reset %d %v", f.StreamID, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("goaway %d %v", f.LastStreamID, f.ErrCode)
	case *http2.PingFrame:
		if !f.IsAck() {
			k.fw.WritePing(true, f.Data)
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			k.fw.WriteSettingsAck()
		}
	}
	return ""
}

// A client2 is a client's HTTP/2 connection in a tunnel.
type client2 struct {
	*client
	*talker
	frames []string // seen and not yet asked for
}

// open2 brings a tunnel to the proxy, and greets inside it.
func (r *rig) open2(dest string, settings ...http2.Setting) *client2 {
	r.t.Helper()
	c := &client2{client: r.open(dest), talker: newTalker(r.t)}
	c.out.WriteString(http2.ClientPreface)
	c.fw.WriteSettings(settings...)
	c.flush()
	c.want()
	return c
}

// flush sends what is queued, in one turn, and takes what comes of it.
func (c *client2) flush() {
	for c.out.Len() > 0 {
		text := c.out.String()
		c.out.Reset()
		c.client.send(text)
		c.pull()
	}
}

func (c *client2) pull() {
	c.in.WriteString(c.take())
	for c.in.Len() > 0 {
		f, err := c.fr.ReadFrame()
		if err != nil {
			c.talker.t.Fatalf("the proxy wrote what http2.Framer does not read: %v (%v)", err, c.fr.ErrorDetail())
		}
		if s := c.show(f); s != "" {
			c.frames = append(c.frames, s)
		}
	}
}

// want sends what is queued and wants exactly these frames since it was last
// asked, but for SETTINGS, PING and WINDOW_UPDATE.
func (c *client2) want(frames ...string) {
	c.talker.t.Helper()
	c.flush()
	c.pull()
	c.flush()
	if !slices.Equal(c.frames, frames) {
		c.talker.t.Fatalf("the client got\n  %s\nwant\n  %s", strings.Join(c.frames, "\n  "), strings.Join(frames, "\n  "))
	}
	c.frames = nil
}

// pass lets time pass for a client that answers PINGs.
func (c *client2) pass(d time.Duration) {
	for ; d > 0; d -= 5 * time.Second {
		pass(min(d, 5*time.Second))
		c.pull()
		c.flush()
	}
}

// fields of requests.
func getHead(path string, more ...string) []string {
	return append([]string{":method: GET", ":scheme: http", ":authority: two", ":path: " + path}, more...)
}

func postHead(path string, more ...string) []string {
	return append([]string{":method: POST", ":scheme: http", ":authority: two", ":path: " + path}, more...)
}

func callHead(more ...string) []string {
	return postHead("/shop.Reviews/List", append([]string{"content-type: application/grpc", "te: trailers"}, more...)...)
}

// An app2 is an application that speaks HTTP/2, played by hand.
type app2 struct {
	*talker
	a    *app
	fr   *http2.Framer
	quit bool
}

// speaks2 makes an application of what it does with each frame. Frames that it
// queues are sent when it returns.
func speaks2(do func(a *app2, frame string)) func(*app) {
	return speaks2With(nil, do)
}

func speaks2With(settings []http2.Setting, do func(a *app2, frame string)) func(*app) {
	return func(c *app) {
		defer c.Close()
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c.r, preface); err != nil || string(preface) != http2.ClientPreface {
			return
		}
		a := &app2{talker: newTalker(nil), a: c}
		a.fr = http2.NewFramer(io.Discard, c.r)
		a.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		a.fw.WriteSettings(settings...)
		for !a.quit {
			if a.out.Len() > 0 {
				c.send(a.out.String())
				a.out.Reset()
			}
			f, err := a.fr.ReadFrame()
			if err != nil {
				return
			}
			if s := a.show(f); s != "" {
				do(a, s)
			}
		}
		if a.out.Len() > 0 {
			c.send(a.out.String())
		}
		c.CloseWrite()
		io.Copy(io.Discard, c.r)
	}
}

// echo2 answers a head that ends with its fields, and other content with itself.
func echo2(a *app2, frame string) {
	var id uint32
	kind, rest, _ := strings.Cut(frame, " ")
	fmt.Sscan(rest, &id)
	_, rest, _ = strings.Cut(rest, " ")
	body, end := strings.CutSuffix(rest, " end")
	switch {
	case kind == "head" && strings.HasPrefix(rest, ":"):
		a.head(id, false, ":status: 200")
		if end {
			a.data(id, body, true)
		}
	case kind == "head":
		a.head(id, true, "got: "+body)
	case kind == "data":
		var text string
		fmt.Sscanf(body, "%q", &text)
		a.data(id, text, end)
	}
}

// seen2 collects the frames of an application.
type seen2 struct{ frames chan string }

func newSeen2() *seen2 { return &seen2{frames: make(chan string, 100)} }

// want wants exactly these frames on the application's side.
func (s *seen2) want(t *testing.T, frames ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for len(s.frames) > 0 {
		got = append(got, <-s.frames)
	}
	if !slices.Equal(got, frames) {
		t.Fatalf("the application got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(frames, "\n  "))
	}
}

// settled2 checks that nothing is left of the streams of a connection.
func (c *client2) settled2() {
	c.talker.t.Helper()
	synctest.Wait()
	in := c.h.(*inner2)
	if n := in.h2.Streams(); n != 0 {
		c.talker.t.Errorf("%d streams are left", n)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if n := in.hold.exchanges; n != 0 {
		c.talker.t.Errorf("%d exchanges hold the snapshot", n)
	}
}
