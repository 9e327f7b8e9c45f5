package filtertest

import (
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// patience is how long a filter that waits may take.
const patience = 10 * time.Second

// A Drive takes streams through a chain, as the engine would.
type Drive struct {
	S     *filters.Stream // the present stream; its fields may be set before Request
	t     testing.TB
	chain *filters.Chain
	told  chan uint64
}

// New builds one filter from its settings and returns a Drive for it. It fails
// the test if the filter cannot be built.
func New(t testing.TB, k filters.Kind, settings any) *Drive {
	t.Helper()
	b := filters.NewBuilder(filters.Env{Level: filters.RouteLevel, Registry: filters.NewRegistry(k)})
	if err := b.Add(k.Name, t.Name(), filters.NewSpec(settings)); err != nil {
		t.Fatal(err)
	}
	c, err := b.Chain()
	if err != nil {
		t.Fatal(err)
	}
	return Chain(t, c)
}

// Chain returns a Drive for a chain that the test has built, and closes the
// chain when the test ends.
func Chain(t testing.TB, c *filters.Chain) *Drive {
	d := &Drive{t: t, chain: c, S: new(filters.Stream), told: make(chan uint64, 1)}
	d.S.Bind(d)
	t.Cleanup(func() {
		d.S.Cancel(errOver)
		d.S.Reset()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Resume is the filters.Engine's part of a Drive.
func (d *Drive) Resume(_ *filters.Stream, gen uint64) { d.told <- gen }

// Conn runs the connection phase for a client of that identity.
func (d *Drive) Conn(spiffeID string) error {
	d.t.Helper()
	return d.chain.Conn(&filters.Conn{Peer: Peer(d.t, spiffeID), Service: "test", Start: time.Now()})
}

// Review asks whether a request that is under way may go on.
func (d *Drive) Review(r *message.Request) error {
	d.t.Helper()
	s := new(filters.Stream)
	s.Request, s.Peer, s.Start = r, d.S.Peer, time.Now()
	return d.chain.Review(s)
}

// Request runs the request phase to its end, waits included.
func (d *Drive) Request(r *message.Request) *filters.Reply {
	d.t.Helper()
	d.S.Request, d.S.Start = r, time.Now()
	return d.finish(func() *filters.Reply { return d.chain.Request(d.S) })
}

// Response runs the response phase to its end. Replies become the response for
// the filters still to come; the last one is returned.
func (d *Drive) Response(r *message.Response) *filters.Reply {
	d.t.Helper()
	d.S.Response = r
	var last *filters.Reply
	for {
		reply := d.finish(func() *filters.Reply { return d.chain.Response(d.S) })
		if reply == nil {
			return last
		}
		last = reply
		d.S.Response = Response(reply.Status)
		for _, f := range reply.Header {
			d.S.Response.Header.Add(f.Name, f.Value)
		}
	}
}

// RequestBody runs one chunk through the request body phase and returns what
// goes on upstream.
func (d *Drive) RequestBody(data string, end bool) (string, *filters.Reply) {
	d.t.Helper()
	return d.body(d.chain.RequestBody, data, end)
}

// ResponseBody runs one chunk through the response body phase and returns what
// goes on downstream.
func (d *Drive) ResponseBody(data string, end bool) (string, *filters.Reply) {
	d.t.Helper()
	return d.body(d.chain.ResponseBody, data, end)
}

// Done ends the stream and makes the Drive ready for the next.
func (d *Drive) Done() {
	d.chain.Done(d.S)
	d.S.Reset()
	d.S.Bind(d)
}

func (d *Drive) body(phase func(*filters.Stream, *message.Chunk) *filters.Reply, data string, end bool) (string, *filters.Reply) {
	d.t.Helper()
	view := []byte(data)
	c := &message.Chunk{Data: view, End: end}
	r := d.finish(func() *filters.Reply { return phase(d.S, c) })
	out := string(c.Data)
	for i := range view {
		view[i] = 0xDB
	}
	return out, r
}

// finish runs a phase until it no longer waits.
func (d *Drive) finish(phase func() *filters.Reply) *filters.Reply {
	d.t.Helper()
	for {
		r := phase()
		if r != filters.Wait {
			return r
		}
		if gen, work := d.S.Waiting(); work {
			go d.S.RunWork(gen)
		}
		select {
		case gen := <-d.told:
			r, ok := d.S.Resumed(gen)
			if !ok {
				d.t.Fatal("the filter resumed a stream that does not wait")
			}
			if r != nil {
				return r
			}
		case <-time.After(patience):
			d.t.Fatal("the filter waits for too long")
		}
	}
}

// Request returns a request head; fields are names and values in turn.
func Request(method, path string, fields ...string) *message.Request {
	r := &message.Request{}
	r.SetMethod([]byte(method))
	r.SetPath([]byte(path))
	r.SetAuthority([]byte("test"))
	add(&r.Header, fields)
	return r
}

// Response returns a response head; fields are names and values in turn.
func Response(status int, fields ...string) *message.Response {
	r := &message.Response{Status: status}
	add(&r.Header, fields)
	return r
}

func add(h *message.Header, fields []string) {
	for i := 0; i+1 < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
}

// Peer returns a client of that identity; "" is a client without one.
func Peer(t testing.TB, spiffeID string) *peer.Info {
	t.Helper()
	info := &peer.Info{How: peer.HBONE}
	if spiffeID != "" {
		id, err := peer.ParseID(spiffeID)
		if err != nil {
			t.Fatal(err)
		}
		info.ID = id
	}
	return info
}
