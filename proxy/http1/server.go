package http1

import (
	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// A ServerHandler is told what a Server reads. Calls come from within Feed, EOF
// and Next.
type ServerHandler interface {
	// NewRequest lends the message the next request is read into, empty. The
	// codec writes to it until the request has been read in full, the response
	// has been written in full, or Release was called.
	NewRequest(t *turn.Turn) *message.Request
	// Request brings a complete head. With end there is no body.
	Request(t *turn.Turn, r *message.Request, end bool)
	// RequestChunk brings body bytes; the last call has c.End.
	RequestChunk(t *turn.Turn, c *message.Chunk)
	// RequestError says that reading is over, once; nothing follows it. It may
	// come during an exchange. If no response head has gone out, one with
	// err.Status may be written; then the connection ends.
	RequestError(t *turn.Turn, err *ParseError)
}

// readState is where a codec stands in what it reads.
type readState uint8

const (
	readIdle  readState = iota // between messages
	readBlank                  // idle, and behind the CR of an empty line
	readHead
	readBody
	readDone   // the message is complete; more bytes are kept (Server) or wrong (Client)
	readTunnel // what follows is another protocol's: it is kept for Detach
	readFailed // what follows is dropped
)

// A Server reads requests and writes responses on one inner connection, one
// exchange at a time, in order.
//
// An exchange goes: NewRequest, Request, RequestChunk to its end on one side;
// Informational, WriteHead, WriteChunk to its end on the other, in any
// interleaving. When both sides are done the caller asks KeepAlive, and then
// calls Next, or ends the connection.
type Server struct {
	// Set once.
	sink turn.Sink
	h    ServerHandler

	// Guarded by the lane. What a response needs comes first: it finds the codec out
	// of the processor's caches.
	request   *message.Request
	read      readState
	write     writeState
	feeding   bool // run is on the stack: Next leaves the rest to it
	blank     bool // the one empty line before a request has been seen
	eof       bool // the client will send no more
	persist   bool // neither side has said that this exchange is the last
	isHead    bool // the method is HEAD
	isConnect bool
	upgrade   bool // the request offered to switch protocols
	waits     bool // the client waits for 100 before it sends its body
	http10    bool
	out       bodyWriter
	kept      kept
	head      partial
	body      bodyReader
	chunk     message.Chunk
}

// Init makes s ready. Limits may be nil for the defaults; they are shared and
// must not change.
func (s *Server) Init(sink turn.Sink, h ServerHandler, l *Limits) {
	if l == nil {
		l = DefaultLimits()
	}
	*s = Server{sink: sink, h: h, head: partial{limits: l}, persist: true}
}

// Feed takes all of p: it is read, or kept while an exchange is in progress.
func (s *Server) Feed(t *turn.Turn, p []byte) {
	if s.kept.len() == 0 {
		p = p[s.run(t, p):]
	}
	s.keep(t, p)
	s.drain(t)
}

// keep puts by what belongs to a later exchange, or to another protocol.
func (s *Server) keep(t *turn.Turn, p []byte) {
	if len(p) > 0 && s.read != readFailed && !s.kept.add(p, s.head.limits.Kept) {
		s.fail(t, &ParseError{Status: 400, Reason: "too much sent ahead", Offset: s.body.raw})
	}
}

// drain reads what was kept for as long as exchanges end at once.
func (s *Server) drain(t *turn.Turn) {
	for s.read == readIdle && s.kept.len() > 0 {
		k := s.kept.take()
		k.off += s.run(t, k.bytes[k.off:])
		if k.len() == 0 {
			k.drop()
		} else {
			s.kept = k
		}
	}
}

// EOF says that the client will send no more. What it sent in full is still
// answered; a message cut short is an error.
func (s *Server) EOF(t *turn.Turn) {
	s.eof = true
	if s.kept.len() == 0 {
		s.truncated(t)
	}
}

func (s *Server) truncated(t *turn.Turn) {
	if s.read == readHead || s.read == readBody || s.read == readBlank {
		s.fail(t, &ParseError{Status: 400, Reason: "request cut short", Offset: s.offset()})
	}
}

func (s *Server) offset() int64 {
	switch s.read {
	case readHead:
		return int64(s.request.Header.Size())
	case readBody:
		return s.body.raw
	}
	return 0
}

// Next ends an exchange whose request has been read and whose response has been
// written, and goes on with what was kept. Called from a handler it returns at
// once, and Feed goes on.
func (s *Server) Next(t *turn.Turn) {
	if s.read != readDone || s.write != writeDone {
		return
	}
	s.request = nil
	s.read, s.write = readIdle, writeNone
	s.blank = false
	if s.feeding || s.kept.len() == 0 {
		return
	}
	s.drain(t)
	if s.eof && s.kept.len() == 0 {
		if s.read == readIdle { // only an empty line was left
			s.read = readBlank
		}
		s.truncated(t)
	}
}

// written closes the writing side of an exchange. The message that was lent may
// be gone from here on; what still comes of a request that was overtaken is told
// without it, unless its fields were being read.
func (s *Server) written() {
	s.write = writeDone
	if s.read == readHead || s.read == readBody && s.body.state == chunkTail {
		s.read, s.persist = readFailed, false
		s.head.drop()
	}
	s.request = nil
}

// run reads p until it is used up or an exchange has to end first.
func (s *Server) run(t *turn.Turn, p []byte) (n int) {
	s.feeding = true
	for n < len(p) && s.read < readDone {
		switch s.read {
		case readHead:
			n += s.readHead(t, p[n:])
		case readBody:
			n += s.readBody(t, p[n:])
		default:
			n += s.readIdle(t, p[n:])
		}
	}
	s.feeding = false
	if s.read == readFailed {
		n = len(p)
	}
	return n
}

// readIdle begins a request. One empty line before it is forgiven (RFC 9112,
// section 2.2), and is no reason yet to hold a message.
func (s *Server) readIdle(t *turn.Turn, p []byte) (n int) {
	switch {
	case s.read == readBlank && p[0] == '\n':
		s.read, s.blank = readIdle, true
		return 1
	case s.read == readIdle && p[0] == '\r' && !s.blank:
		s.read = readBlank
		return 1
	}
	cr := s.read == readBlank
	s.request = s.h.NewRequest(t)
	s.read = readHead
	if cr {
		s.fail(t, &ParseError{Status: 400, Reason: "bare CR before a request"})
	}
	return 0
}

func (s *Server) readHead(t *turn.Turn, p []byte) (n int) {
	var fresh headReader
	r := s.head.open(&fresh, &s.request.Header, requestHead, 0)
	n, done, err := r.feed(p)
	if err == nil && done {
		err = r.request(s.request)
	}
	if err != nil {
		s.fail(t, err)
		return n
	}
	if !done {
		s.head.keep(r)
		return n
	}
	q := s.request
	s.isHead = string(q.Method) == "HEAD"
	s.isConnect = string(q.Method) == "CONNECT"
	s.upgrade = len(q.Upgrade) > 0
	s.waits = q.ExpectContinue
	s.http10 = q.Proto == message.HTTP10
	// What a client sends behind CONNECT is not HTTP, whatever the answer.
	s.persist = s.persist && r.persistent() && !s.isConnect
	mode := sizedBody
	switch q.Length {
	case message.NoBody:
		mode, s.read = noBody, readDone
	case message.UnknownLength:
		mode, s.read = chunkedBody, readBody
	default:
		s.read = readBody
	}
	s.body.begin(mode, q.Length, int64(r.pos))
	s.head.drop()
	if s.isConnect || s.upgrade { // the handler may Detach at once
		s.keep(t, p[n:])
		n = len(p)
	}
	if s.read != readFailed {
		s.h.Request(t, q, mode == noBody)
	}
	return n
}

func (s *Server) readBody(t *turn.Turn, p []byte) (n int) {
	var trailer *message.Header
	if s.request != nil {
		trailer = &s.request.Trailer
	} else {
		trailer = new(message.Header)
	}
	n, ready, err := s.body.read(p, &s.chunk, &s.head, trailer)
	if err != nil {
		s.fail(t, err)
		return n
	}
	s.waits = false
	if !ready {
		return n
	}
	if s.chunk.End {
		s.read = readDone
	}
	s.h.RequestChunk(t, &s.chunk)
	s.chunk = message.Chunk{} // a view kept here would keep a buffer alive
	return n
}

func (s *Server) fail(t *turn.Turn, err *ParseError) {
	s.read, s.persist = readFailed, false
	s.request = nil
	s.head.drop()
	s.kept.drop()
	s.h.RequestError(t, err)
}

// Kept returns how many bytes wait for the exchange in progress to end. Their
// credit should wait too.
func (s *Server) Kept() int { return s.kept.len() }

// KeepAlive reports whether the connection may go on with Next when the
// exchange is over. It is false while the request has not been read in full:
// a response that overtakes it is the connection's last.
func (s *Server) KeepAlive() bool {
	return s.persist && s.read == readDone && (!s.eof || s.kept.len() > 0)
}

// Idle reports whether no request has begun.
func (s *Server) Idle() bool { return s.read <= readBlank }

// Ended reports whether the client has said that it sends no more.
func (s *Server) Ended() bool { return s.eof }

// Detach hands over the connection after a 101 or an answer to CONNECT: it
// returns the bytes that came behind the request, which the caller now owns and
// gives to buf.Put. ok is false if the connection has not switched. The codec is
// of no use any more.
func (s *Server) Detach() (rest []byte, ok bool) {
	if s.write != writeTunnel || s.read != readDone {
		return nil, false
	}
	k := s.kept.take()
	s.request, s.read = nil, readTunnel
	if k.off > 0 {
		k.bytes = k.bytes[:copy(k.bytes, k.bytes[k.off:])]
	}
	return k.bytes, true
}

// Release gives back what s holds. It is called when the connection is over.
func (s *Server) Release() {
	s.kept.drop()
	s.head.drop()
	s.request, s.chunk = nil, message.Chunk{}
	s.read, s.persist = readFailed, false
}
