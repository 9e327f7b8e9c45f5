package http1

import (
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A ClientHandler is told what a Client reads. Calls come from within Feed and
// EOF.
type ClientHandler interface {
	// NewResponse lends the message the next response is read into, empty. The
	// codec writes to it until the response has been read in full, or Release
	// was called.
	NewResponse(t *turn.Turn) *message.Response
	// Informational brings a 1xx other than 101. The message is reset and used
	// again when it returns.
	Informational(t *turn.Turn, r *message.Response)
	// Response brings the final head. With end there is no body: the exchange is
	// over if the request has been written too. After a 101, or a CONNECT's 2xx,
	// end is true and the connection awaits Detach.
	Response(t *turn.Turn, r *message.Response, end bool)
	// WholeResponse is Response, and ResponseChunk of all its body, a view, which has
	// q.Length bytes and came in the same call of Feed.
	WholeResponse(t *turn.Turn, r *message.Response, body []byte)
	// ResponseChunk brings body bytes; the last call has c.End.
	ResponseChunk(t *turn.Turn, c *message.Chunk)
	// ResponseError says that reading is over, once; nothing follows it. err is
	// a *ParseError, or ErrTruncated.
	ResponseError(t *turn.Turn, err error)
}

// A Client writes requests and reads responses on one inner connection, one at
// a time. It may be used again while Reusable.
type Client struct {
	// Set once.
	sink turn.Sink
	h    ClientHandler

	// Guarded by the lane. What a response needs comes first, as in a Server.
	response *message.Response
	read     readState
	write    writeState
	interim  int8
	asked    asked
	started  bool // a byte of the response has come
	sound    bool // nothing speaks against using the connection again
	head     partial
	body     bodyReader
	kept     kept // behind a switch of protocols, until Detach
	chunk    message.Chunk
	out      bodyWriter
}

// Init makes c ready. Limits may be nil for the defaults; they are shared and
// must not change.
func (c *Client) Init(sink turn.Sink, h ClientHandler, l *Limits) {
	if l == nil {
		l = DefaultLimits()
	}
	*c = Client{sink: sink, h: h, head: partial{limits: l}, sound: true}
}

// SetHandler changes who is told, between exchanges: the connection serves
// another call.
func (c *Client) SetHandler(h ClientHandler) { c.h = h }

// Feed takes all of p.
func (c *Client) Feed(t *turn.Turn, p []byte) {
	for len(p) > 0 {
		switch c.read {
		case readIdle:
			if c.write == writeNone { // nobody asked
				c.sound = false
				return
			}
			c.response = c.h.NewResponse(t)
			c.read, c.started = readHead, true
		case readHead:
			p = p[c.readHead(t, p):]
		case readBody:
			p = p[c.readBody(t, p):]
		case readTunnel:
			if !c.kept.add(p, c.head.limits.Kept) {
				c.fail(t, &ParseError{Reason: "too much sent ahead"})
			}
			return
		default: // behind a message, or behind an error
			c.sound = false
			return
		}
	}
}

func (c *Client) readHead(t *turn.Turn, p []byte) (n int) {
	var fresh headReader
	r := c.head.open(&fresh, &c.response.Header, responseHead, 0)
	n, done, err := r.feed(p)
	if err != nil {
		c.fail(t, err)
		return n
	}
	if !done {
		c.head.keep(r)
		return n
	}
	mode, sound, err := r.response(c.response, c.asked)
	sound = sound && r.persistent()
	length := int64(r.pos)
	c.head.drop()
	q := c.response
	if err == nil && q.Status < 200 && q.Status != 101 {
		if c.interim++; int(c.interim) <= c.head.limits.Interim {
			c.h.Informational(t, q)
			if c.response == q { // the handler did not end the call
				q.Reset()
			}
			return n
		}
		err = &ParseError{Reason: "too many informational responses"}
	}
	if err != nil {
		c.fail(t, err)
		return n
	}
	c.sound = c.sound && sound
	if mode == sizedBody && q.Length <= int64(len(p)-n) { // as most are
		body := p[n : n+int(q.Length) : n+int(q.Length)]
		n += len(body)
		c.read = readDone
		c.over(len(p) - n)
		c.h.WholeResponse(t, q, body)
		return n
	}
	c.body.begin(mode, q.Length, length)
	c.read = readBody
	if mode == noBody {
		c.read = readDone
		if q.Status == 101 || c.asked.connect && q.Status < 300 {
			c.read = readTunnel
		}
		c.over(len(p) - n)
	}
	if c.read == readTunnel { // the handler may Detach at once
		c.Feed(t, p[n:])
		n = len(p)
	}
	if c.read != readFailed {
		c.h.Response(t, q, mode == noBody)
	}
	return n
}

func (c *Client) readBody(t *turn.Turn, p []byte) (n int) {
	n, ready, err := c.body.read(p, &c.chunk, &c.head, &c.response.Trailer)
	if err != nil {
		c.fail(t, err)
		return n
	}
	if !ready {
		return n
	}
	if c.chunk.End {
		c.read = readDone
		c.over(len(p) - n)
	}
	c.h.ResponseChunk(t, &c.chunk)
	c.chunk = message.Chunk{} // a view kept here would keep a buffer alive
	return n
}

// over closes the reading side of an exchange before the handler hears of it,
// because the handler may ask Reusable at once. rest is what follows in the
// same read: a response nobody asked for is a reason to distrust the connection.
func (c *Client) over(rest int) {
	if c.read == readTunnel {
		return
	}
	c.sound = c.sound && rest == 0 && c.write == writeDone
	if c.sound {
		c.response = nil
		c.read, c.write = readIdle, writeNone
	}
}

// EOF says that the server will send no more. It ends a body that has no other
// end; anything else it cuts short.
func (c *Client) EOF(t *turn.Turn) {
	c.sound = false
	switch {
	case c.read == readBody && c.body.mode == closeBody:
		c.read = readDone
		c.chunk = message.Chunk{End: true}
		c.h.ResponseChunk(t, &c.chunk)
	case c.read == readBody, c.read == readHead, c.read == readIdle && c.write != writeNone:
		c.read = readFailed
		c.h.ResponseError(t, ErrTruncated)
	}
}

func (c *Client) fail(t *turn.Turn, err *ParseError) {
	err.Status = 502
	c.read, c.sound = readFailed, false
	c.head.drop()
	c.kept.drop()
	c.h.ResponseError(t, err)
}

// Reusable reports whether the connection may carry another request: the last
// exchange ended on both sides, in order, and neither side wants the end.
func (c *Client) Reusable() bool {
	return c.sound && c.read == readIdle && c.write == writeNone
}

// Started reports whether a byte of the response to the last request has come.
func (c *Client) Started() bool { return c.started }

// Switched reports whether the connection awaits Detach.
func (c *Client) Switched() bool { return c.read == readTunnel }

// Kept returns how many bytes wait for Detach. Their credit should wait too.
func (c *Client) Kept() int { return c.kept.len() }

// Detach hands over the connection after a 101 or a CONNECT's 2xx, as
// Server.Detach does.
func (c *Client) Detach() (rest []byte, ok bool) {
	if c.read != readTunnel {
		return nil, false
	}
	k := c.kept.take()
	c.response, c.read = nil, readFailed
	return k.bytes, true
}

// Release gives back what c holds. It is called when the connection is over.
func (c *Client) Release() {
	c.kept.drop()
	c.head.drop()
	c.response, c.chunk = nil, message.Chunk{}
	c.read, c.sound = readFailed, false
}
