package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
)

const (
	recordHeader = 5
	// maxAnswers bounds ciphertext that waits to be sent, such as answers to key
	// updates of a peer that does not read them; the rest is one encryption.
	maxAnswers = 256 << 10
	maxPlain   = 16 << 10        // RFC 8446, section 5.1
	maxCipher  = maxPlain + 2048 // of TLS 1.2; 1.3 has less
	plainSize  = 8 * maxPlain    // small records gather in one Feed while a large one still fits; 2 to 3 % for four times as much
)

// NewTLS makes a connection of nc with TLS over it. tc is called once, with the
// transport that it gives to tls.Client or tls.Server; its Config should have
// DynamicRecordSizingDisabled. Handshake must succeed before Serve.
func NewTLS(nc net.Conn, tc func(net.Conn) *tls.Conn, o Options) *Conn {
	c := newConn(nc, o)
	c.alone() // until the handshake is over
	c.rec = &records{Conn: nc, st: &c.stats}
	c.tc = tc(c.rec)
	return c
}

// Handshake runs the TLS handshake on the calling goroutine, which it blocks: so
// its deep stack is not the reader's. When it fails the transport is closed,
// within partTime, and the connection must not be served.
func (c *Conn) Handshake(ctx context.Context) error {
	err := c.tc.HandshakeContext(ctx)
	if err != nil {
		c.rec.discard()
		go c.part()
		return err
	}
	c.rec.compact()
	c.join()
	c.rec.async = true // owed stays: crypto/tls may hold any number of records that came behind the handshake
	return nil
}

// partTime bounds how long a transport outlives a handshake that failed.
const partTime = time.Second

// part closes the transport behind the alert that says why. What the peer has
// sent ahead is dropped first: to close with bytes unread would answer with RST,
// which overtakes the alert, and the peer would never learn the reason.
func (c *Conn) part() {
	defer c.nc.Close()
	hc, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || hc.CloseWrite() != nil {
		return
	}
	c.nc.SetReadDeadline(time.Now().Add(partTime))
	_, _ = io.CopyN(io.Discard, c.nc, 64<<10)
}

// Discard gives up a connection that will not be served: the peer hears RST.
func (c *Conn) Discard() {
	c.Abort(nil, 0)
	if c.rec != nil {
		c.rec.discard()
	}
	c.release()
}

// ConnectionState says what the handshake agreed on.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.tc.ConnectionState() }

// decrypt gives the engine what the records in hand hold.
func (c *Conn) decrypt() {
	if c.rec.closed {
		c.rec.discard()
		return
	}
	for !c.halt.Load() && !c.full() && c.rec.ready() {
		p, err := c.plaintext(buf.Get(plainSize))
		if len(p) > 0 {
			c.deliver(p)
		}
		buf.Put(p)
		c.answered()
		switch {
		case err == nil:
		case err == io.EOF:
			c.rec.closed = true
			c.rec.discard()
			c.peerEnded()
		default:
			c.badRecord(err)
		}
		if c.turn.Spent() {
			c.breathe()
		}
	}
	c.rec.compact()
}

// plaintext fills p with as many records as fit.
func (c *Conn) plaintext(p []byte) ([]byte, error) {
	for cap(p)-len(p) >= maxPlain && c.rec.ready() {
		n, err := c.tc.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		if n > 0 {
			c.rec.owed--
		}
		if err == errWouldBlock { // a record that was not data
			c.rec.owed = 0
			continue
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// answered sees to it that what TLS wrote of its own accord is flushed: an
// alert, the answer to a key update.
func (c *Conn) answered() {
	n := c.rec.pending()
	if n == 0 {
		return
	}
	c.mu.Lock()
	if c.mark(c.turn); n > maxAnswers {
		c.failLocked(errAnswers)
	}
	c.mu.Unlock()
}

// badRecord ends a connection whose TLS has failed. The alert has been queued;
// nothing can follow it.
func (c *Conn) badRecord(err error) {
	c.mu.Lock()
	c.notified = true
	c.buffered.Add(int64(-len(c.out)))
	buf.Put(c.out)
	c.out = nil
	c.mu.Unlock()
	c.end(err)
}

// records is the transport that crypto/tls sees. During the handshake it blocks
// as any other; afterwards Read only hands over what has been read already, and
// Write only appends.
type records struct {
	net.Conn // addresses
	st       *stats

	// Owned by the goroutine that shakes hands, then by the reader.
	async  bool
	closed bool // by close_notify: what follows is ignored (RFC 8446, section 6.1)
	in     []byte
	off    int
	rest   int // of a record that is partly handed over
	owed   int // records handed over whose plaintext has not come back, at most

	mu  sync.Mutex // last in the lock order
	out []byte     // guarded by mu
}

// Read hands over whole records, as many as fit, or one that does not fit or is
// not whole piece by piece: so crypto/tls's own buffer is empty between records
// and never grows beyond one.
func (r *records) Read(p []byte) (int, error) {
	r.st.tlsReads.Add(1)
	for {
		if n := r.next(len(p)); n > 0 {
			copy(p, r.in[r.off:r.off+n])
			r.off += n
			return n, nil
		}
		if r.async {
			return 0, errWouldBlock
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
}

// next says how many bytes to hand over.
func (r *records) next(room int) int {
	have := r.in[r.off:]
	n := 0
	if r.rest == 0 {
		for l := recordLen(have); l > 0 && n+l <= len(have) && n+l <= room; l = recordLen(have[n:]) {
			n += l
			r.owed++
		}
		if n > 0 || len(have) < recordHeader || r.async && !whole(have) {
			return n
		}
		r.rest = recordLen(have)
		r.owed++
	}
	n = min(r.rest, len(have), room)
	r.rest -= n
	return n
}

// recordLen returns the length of the record that p begins with, 0 if its
// header is not whole. Of what cannot be a record it asks for the header only,
// for crypto/tls to judge.
func recordLen(p []byte) int {
	if len(p) < recordHeader {
		return 0
	}
	n := int(binary.BigEndian.Uint16(p[3:]))
	if p[1] != 3 || n > maxCipher {
		n = 0
	}
	return recordHeader + n
}

func whole(p []byte) bool {
	l := recordLen(p)
	return l > 0 && l <= len(p)
}

// ready reports whether crypto/tls can be asked for plaintext without asking in
// vain: to be told that there is none costs it an allocation.
func (r *records) ready() bool {
	return r.owed > 0 || r.rest > 0 && r.off < len(r.in) || whole(r.in[r.off:])
}

// fill reads during the handshake.
func (r *records) fill() error {
	r.compact()
	r.in = buf.Grow(r.in, 1)
	n, err := r.Conn.Read(r.in[len(r.in):cap(r.in)])
	r.st.reads.Add(1)
	r.st.bytesIn.Add(int64(n))
	r.in = r.in[:len(r.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// compact moves what is left of in to the front of a buffer that is not larger
// than it has to be, or gives the buffer back.
func (r *records) compact() {
	if r.off > 0 {
		r.in = r.in[:copy(r.in, r.in[r.off:])]
		r.off = 0
	}
	r.in = buf.Shrink(r.in)
}

// discard forgets ciphertext that nobody will ask for.
func (r *records) discard() {
	buf.Put(r.in)
	r.in, r.off, r.rest, r.owed = nil, 0, 0, 0
}

// Write takes ciphertext. crypto/tls calls it with its own lock on the sending
// side held.
func (r *records) Write(p []byte) (int, error) {
	if !r.async {
		r.st.writes.Add(1)
		return r.Conn.Write(p)
	}
	r.mu.Lock()
	r.out = buf.Append(r.out, p)
	r.mu.Unlock()
	return len(p), nil
}

// expect makes room for the ciphertext of n bytes, so that it is not moved while
// it grows.
func (r *records) expect(n int) {
	r.mu.Lock()
	r.out = buf.Grow(r.out, n+(n/maxPlain+1)*(recordHeader+17)) // RFC 8446, section 5.2
	r.mu.Unlock()
}

func (r *records) pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.out)
}

func (r *records) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.out
	r.out = nil
	return b
}

// crypto/tls sets deadlines around close_notify; here they would cut what is
// being drained.

func (r *records) SetDeadline(time.Time) error      { return nil }
func (r *records) SetReadDeadline(time.Time) error  { return nil }
func (r *records) SetWriteDeadline(time.Time) error { return nil }
