package traffic

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// A LedgerEnd is a tunnel's end that keeps a ledger of its connection's
// windows. It expects one mesh connection.
type LedgerEnd struct {
	mu    sync.Mutex // held while the one connection's frame is handled
	hand  *hand
	conns int
	err   error
}

// Serve accepts mesh connections on l until l is closed.
func (e *LedgerEnd) Serve(l net.Listener, config *tls.Config) error {
	for {
		nc, err := l.Accept()
		if err != nil {
			return err
		}
		go e.serveConn(tls.Server(nc, config))
	}
}

func (e *LedgerEnd) serveConn(nc net.Conn) {
	defer nc.Close()
	h, err := acceptHand(nc)
	if err != nil {
		return
	}
	e.mu.Lock()
	e.hand = h
	e.conns++
	e.mu.Unlock()
	err = e.frames(h)
	e.mu.Lock()
	e.err = err
	e.mu.Unlock()
}

// An endStream is one CONNECT stream at the end.
type endStream struct {
	q    question
	may  int64 // what the peer lets us send on it
	todo []byte
	body sending
}

func (e *LedgerEnd) frames(h *hand) error {
	streams := map[uint32]*endStream{}
	if err := h.flush(); err != nil {
		return err
	}
	h.nc.SetReadDeadline(time.Time{})
	for {
		if _, err := h.r.Peek(h.skip + 1); err != nil { // waits, and so without the lock
			return err
		}
		if err := e.oneFrame(h, streams); err != nil {
			return err
		}
	}
}

func (e *LedgerEnd) oneFrame(h *hand, streams map[uint32]*endStream) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	f, err := h.read()
	if err != nil {
		return err
	}
	mine, err := h.connection(&f)
	if err == nil && !mine {
		err = answerFrame(h, streams, &f)
	}
	if err != nil {
		return err
	}
	for id, s := range streams { // few are open at once
		s.pump(h, id)
	}
	if h.r.Buffered() > h.skip {
		return nil // more to answer first
	}
	return h.flush()
}

func answerFrame(h *hand, streams map[uint32]*endStream, f *frame) error {
	s := streams[f.id]
	switch f.typ {
	case frameHeaders:
		streams[f.id] = &endStream{may: int64(h.window)}
		h.append(frameHeaders, flagHeaders, f.id, okHead)
	case frameReset:
		delete(streams, f.id)
	case frameWindowUpdate:
		if s != nil {
			s.may += int64(binary.BigEndian.Uint32(f.p))
		}
	case frameData:
		if s == nil {
			return nil
		}
		if len(f.p) > 0 {
			h.appendUint32(frameWindowUpdate, f.id, uint32(len(f.p)))
		}
		if err := s.feed(f.p); err != nil {
			return err
		}
		if f.end() {
			h.append(frameData, flagEnd, f.id, nil)
			delete(streams, f.id)
		}
	}
	return nil
}

func (s *endStream) feed(p []byte) error {
	for len(p) > 0 {
		n, r, err := s.q.feed(p)
		if err != nil {
			return err
		}
		p = p[n:]
		if r != nil {
			s.todo = append(s.todo, r.bytes...)
			if !r.whole {
				s.body = sending{size: r.size}
			}
		}
	}
	return nil
}

// pump sends what both windows allow, a short answer in one frame.
func (s *endStream) pump(h *hand, id uint32) {
	for {
		p := s.todo
		if len(p) == 0 {
			if !s.body.busy() {
				return
			}
			p = body(s.body.off, s.body.size, maxFrame)
		}
		n := int(min(int64(len(p)), maxFrame, s.may, h.may))
		if n <= 0 {
			return
		}
		h.append(frameData, 0, id, p[:n])
		s.may -= int64(n)
		if len(s.todo) > 0 {
			s.todo = s.todo[n:]
		} else {
			s.body.off += int64(n)
		}
	}
}

// A Lost is what the connection's windows of a proxy have lost, in bytes, for
// each of its four accounts.
type Lost struct {
	ToClient, FromClient int64 // sending to, receiving from the client
	ToEnd, FromEnd       int64 // the same towards the tunnel's end
}

// Sum is 0 if all four are whole.
func (l Lost) Sum() (n int64) {
	for _, v := range []int64{l.ToClient, l.FromClient, l.ToEnd, l.FromEnd} {
		n += max(v, -v)
	}
	return n
}

// ledgerClient is the other end: it resets streams in the middle of bodies.
type ledgerClient struct {
	*hand
	to   string
	last uint32 // stream
	seq  uint32
	end  *LedgerEnd
}

// frameTime bounds how long a proxy may take for anything here.
const frameTime = 10 * time.Second

// A Ledger is what the client's end needs.
type Ledger struct {
	Addr   string // of the proxy
	To     string // what CONNECT is bound for
	Config *tls.Config
	End    *LedgerEnd
	Resets int // in each direction
}

// Count resets streams in the middle of their answers and then as many in the
// middle of their requests, and says what windows have lost by it.
func (l *Ledger) Count(ctx context.Context) (Lost, error) {
	var lost Lost
	h, err := dialHand(ctx, l.Addr, l.Config)
	if err != nil {
		return lost, err
	}
	defer h.nc.Close()
	stop := context.AfterFunc(ctx, func() { h.nc.Close() })
	defer stop()
	c := &ledgerClient{hand: h, to: l.To, end: l.End}
	beforeHere, beforeEnd, err := c.peaks()
	if err != nil {
		return lost, fmt.Errorf("before any reset: %w", err)
	}
	if err := c.resetAnswers(l.Resets); err != nil {
		return lost, fmt.Errorf("resetting answers: %w", err)
	}
	if err := c.resetRequests(l.Resets); err != nil {
		return lost, fmt.Errorf("resetting requests: %w", err)
	}
	afterHere, afterEnd, err := c.peaks()
	if err != nil {
		return lost, fmt.Errorf("after the resets: %w", err)
	}
	lost.FromClient, lost.FromEnd = beforeHere-afterHere, beforeEnd-afterEnd
	if lost.ToClient, err = c.stallAnswer(); err != nil {
		return lost, fmt.Errorf("an answer that is not credited: %w", err)
	}
	if lost.ToEnd, err = c.stallRequest(); err != nil {
		return lost, fmt.Errorf("a request that is not credited: %w", err)
	}
	return lost, nil
}

func (c *ledgerClient) open() uint32 {
	if c.last == 0 {
		c.last = 1
	} else {
		c.last += 2
	}
	c.append(frameHeaders, flagHeaders, c.last, connectHead(c.to))
	return c.last
}

// request returns a request's head, numbered.
func (c *ledgerClient) request(answer, upload int64) ([]byte, [tokenLen]byte) {
	r := newRequest(answer, upload)
	c.seq++
	n := r.next(c.last, c.seq)
	return r.bytes, n
}

// accepted waits until CONNECT on a stream is answered.
func (c *ledgerClient) accepted(id uint32) error {
	for {
		f, err := c.next(frameTime)
		if err != nil {
			return err
		}
		if f.id == id && f.typ == frameHeaders {
			if f.end() {
				return errors.New("CONNECT was refused")
			}
			return nil
		}
		if f.id == id && f.typ == frameReset {
			return errors.New("CONNECT was reset")
		}
	}
}

// piece is what one request and one answer of peaks carry as a body. With their
// heads they fit into a frame, so credit for them comes whole or not at all.
const piece = 8 << 10

// peaks exchanges small requests until both receiving windows of the proxy must
// have been filled up twice, and returns the most that they were. Whoever gives
// all credit at once, whenever, comes by its full window so.
func (c *ledgerClient) peaks() (here, end int64, err error) {
	id := c.open()
	if err := c.accepted(id); err != nil {
		return 0, 0, err
	}
	c.peak = c.may
	c.end.mu.Lock()
	if c.end.hand != nil {
		c.end.hand.peak = c.end.hand.may
	}
	c.end.mu.Unlock()
	for sent := int64(0); sent < 2*8<<20; sent += piece {
		if err := c.exchange(id); err != nil {
			return 0, 0, err
		}
	}
	c.reset(id)
	c.end.mu.Lock()
	defer c.end.mu.Unlock()
	switch {
	case c.end.err != nil:
		return 0, 0, fmt.Errorf("at the tunnel's end: %w", c.end.err)
	case c.end.conns != 1:
		return 0, 0, fmt.Errorf("%d mesh connections to the tunnel's end, and the ledger is for one", c.end.conns)
	}
	return c.peak, c.end.hand.peak, nil
}

// exchange makes one request in one frame and checks the answer.
func (c *ledgerClient) exchange(id uint32) error {
	head, number := c.request(piece, piece)
	var a answer
	a.expect(number, piece)
	c.append(frameData, 0, id, append(head, body(0, piece, piece)...))
	for {
		f, err := c.next(frameTime)
		if err != nil {
			return err
		}
		if f.id != id || f.typ == frameWindowUpdate {
			continue
		}
		if f.typ != frameData || f.end() {
			return fmt.Errorf("stream ended in the middle, frame type %d", f.typ)
		}
		if len(f.p) > 0 {
			c.appendUint32(frameWindowUpdate, id, uint32(len(f.p)))
		}
		done, err := a.feed(f.p)
		if done || err != nil {
			return err
		}
	}
}

// together is how many streams are open at once while they are being reset.
const together = 16

// resetAnswers resets n streams, each once some of its answer is here.
func (c *ledgerClient) resetAnswers(n int) error {
	got := map[uint32]int{}
	for done := 0; done < n; {
		for len(got) < together && done+len(got) < n {
			got[c.open()] = 0
		}
		f, err := c.next(frameTime)
		if err != nil {
			return fmt.Errorf("%d done: %w", done, err)
		}
		if _, mine := got[f.id]; !mine {
			continue
		}
		switch f.typ {
		case frameHeaders:
			if f.end() {
				return errors.New("CONNECT was refused")
			}
			head, _ := c.request(1<<20, 0)
			c.append(frameData, 0, f.id, head)
		case frameReset:
			return fmt.Errorf("%d done: the proxy reset stream %d", done, f.id)
		case frameData:
			if n := min(len(f.p), len(okLine)); got[f.id] == 0 && string(f.p[:n]) != string(okLine[:n]) {
				return fmt.Errorf("answer begins with %.40q", f.p)
			}
			if got[f.id] += len(f.p); got[f.id] > 2048 {
				c.reset(f.id)
				delete(got, f.id)
				done++
			}
		}
	}
	return c.settle()
}

// resetRequests resets n streams, each behind a part of its request's body.
func (c *ledgerClient) resetRequests(n int) error {
	waiting := map[uint32]bool{}
	for done := 0; done < n; {
		for len(waiting) < together && done+len(waiting) < n {
			waiting[c.open()] = true
		}
		f, err := c.next(frameTime)
		if err != nil {
			return fmt.Errorf("%d done: %w", done, err)
		}
		if f.typ != frameHeaders || !waiting[f.id] {
			continue
		}
		if f.end() {
			return errors.New("CONNECT was refused")
		}
		head, _ := c.request(10, 1<<20)
		part := append(head, body(0, piece, piece)...)
		for c.may < int64(len(part)) { // credit is on its way, or lost
			if _, err := c.next(frameTime); err != nil {
				return fmt.Errorf("%d done: no credit comes: %w", done, err)
			}
		}
		c.append(frameData, 0, f.id, part)
		c.reset(f.id)
		delete(waiting, f.id)
		done++
	}
	return c.settle()
}

// settle waits until the proxy has taken every reset, and a little longer so
// that the other side's are through too.
func (c *ledgerClient) settle() error {
	c.append(framePing, 0, 0, make([]byte, 8))
	for {
		f, err := c.next(frameTime)
		if err != nil {
			return err
		}
		if f.typ == framePing {
			break
		}
	}
	return c.quiet(func(*frame) error { return nil })
}

// quietTime is how long nothing has to come until nothing will.
const quietTime = 500 * time.Millisecond

// quiet hands frames on until none comes any more.
func (c *ledgerClient) quiet(each func(f *frame) error) error {
	for end := time.Now().Add(frameTime); time.Now().Before(end); {
		f, err := c.next(quietTime)
		if err == errQuiet {
			return nil
		}
		if err == nil {
			err = each(&f)
		}
		if err != nil {
			return err
		}
	}
	return errors.New("it does not become quiet")
}

// stallAnswer asks for more than the connection's window and credits nothing:
// what is missing of the window when the proxy stops is lost.
func (c *ledgerClient) stallAnswer() (int64, error) {
	id := c.open()
	if err := c.accepted(id); err != nil {
		return 0, err
	}
	c.withhold = true
	head, _ := c.request(8*handWindow, 0)
	c.append(frameData, 0, id, head)
	if err := c.quiet(func(f *frame) error {
		if f.typ == frameReset {
			return errors.New("the proxy reset the stream")
		}
		return nil
	}); err != nil {
		return 0, err
	}
	lost := c.outstanding()
	c.reset(id)
	c.credit()
	return lost, c.settle()
}

// stallRequest sends a request that is longer than the connection's window of
// the tunnel's end, which credits nothing meanwhile.
func (c *ledgerClient) stallRequest() (int64, error) {
	id := c.open()
	if err := c.accepted(id); err != nil {
		return 0, err
	}
	c.end.mu.Lock()
	c.end.hand.withhold = true
	c.end.mu.Unlock()
	head, _ := c.request(10, 8*handWindow)
	c.append(frameData, 0, id, head)
	up, may := sending{size: 8 * handWindow}, int64(c.window)-int64(len(head))
	send := func() {
		for up.busy() && may > 0 && c.may > 0 {
			p := body(up.off, up.size, int(min(may, c.may, maxFrame)))
			c.append(frameData, 0, id, p)
			up.off += int64(len(p))
			may -= int64(len(p))
		}
	}
	send()
	if err := c.quiet(func(f *frame) error {
		switch {
		case f.typ == frameReset && f.id == id:
			return errors.New("the proxy reset the stream")
		case f.typ == frameWindowUpdate && f.id == id:
			may += int64(binary.BigEndian.Uint32(f.p))
		}
		send()
		return nil
	}); err != nil {
		return 0, err
	}
	c.end.mu.Lock()
	lost := c.end.hand.outstanding()
	c.end.hand.credit()
	c.end.mu.Unlock()
	c.reset(id)
	return lost, c.flush()
}
