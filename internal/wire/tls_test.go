package wire

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/turn"
)

// A tap keeps what crypto/tls writes instead of sending it, once closed off.
type tap struct {
	net.Conn
	keep bool
	kept bytes.Buffer
}

func (x *tap) Write(p []byte) (int, error) {
	if x.keep {
		return x.kept.Write(p)
	}
	return x.Conn.Write(p)
}

// tapped returns a connection whose peer's records can be had as bytes.
func tapped(t testing.TB, o Options) (c *Conn, far *tls.Conn, x *tap, secrets *bytes.Buffer) {
	t.Helper()
	a, b := sockets(t)
	b.SetDeadline(time.Now().Add(2 * patience))
	server, client := tlsConfigs(t)
	secrets = new(bytes.Buffer)
	client.KeyLogWriter = secrets
	c = NewTLS(a, func(nc net.Conn) *tls.Conn { return tls.Server(nc, server) }, o)
	x = &tap{Conn: b}
	far = tls.Client(x, client)
	failed := make(chan error, 1)
	go func() { failed <- far.Handshake() }()
	if err := errors.Join(c.Handshake(context.Background()), <-failed); err != nil {
		t.Fatal(err)
	}
	x.keep = true
	return c, far, x, secrets
}

// However the ciphertext arrives in pieces, the plaintext is the same: a
// would-block error is not kept by crypto/tls.
func TestRecordsInPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 30 {
		c, far, x, _ := tapped(t, Options{})
		e := newEngine()
		var got, want []byte
		e.onFeed = func(_ *turn.Turn, p []byte) error { got = append(got, p...); return nil }
		c.engine = e
		for range 1 + r.IntN(20) {
			p := make([]byte, r.IntN(1<<r.IntN(17)))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			want = append(want, p...)
			far.Write(p)
		}
		pieces := x.kept.Bytes()
		for len(pieces) > 0 {
			n := min(1+r.IntN(1<<r.IntN(17)), len(pieces), readSize-len(c.rec.in))
			c.rec.in = buf.Append(c.rec.in, pieces[:n])
			pieces = pieces[n:]
			c.decrypt()
			if c.rec.ready() || c.rec.owed != 0 {
				t.Fatal("decrypt left records behind")
			}
			if n := cap(c.rec.in); n > 32<<10 {
				t.Fatalf("%d bytes of buffer are kept between reads, want at most one record's", n)
			}
		}
		if !bytes.Equal(got, want) || c.rec.in != nil {
			t.Fatalf("%d bytes of %d, or changed; %d of ciphertext kept", len(got), len(want), len(c.rec.in))
		}
		c.nc.Close()
	}
}

// What the peer sends right behind its handshake is fed though no read follows.
func TestDataBehindHandshake(t *testing.T) {
	a, b := sockets(t)
	server, client := tlsConfigs(t)
	c := NewTLS(a, func(nc net.Conn) *tls.Conn { return tls.Server(nc, server) }, Options{})
	x := &tap{Conn: b}
	far := tls.Client(x, client)
	flight := make(chan struct{})
	go func() {
		defer close(flight)
		x.hold(far.Handshake)
		for _, record := range []string{"ear", "l", "y"} {
			far.Write([]byte(record))
		}
		b.Write(x.kept.Bytes()) // Finished and data in one segment
	}()
	if err := c.Handshake(context.Background()); err != nil {
		t.Fatal(err)
	}
	await(t, "the client's flight", flight)
	e := newEngine()
	fed := make(chan string, 1)
	e.onFeed = func(_ *turn.Turn, p []byte) error { fed <- string(p); return nil }
	serve(c, e)
	for got := ""; got != "early"; {
		select {
		case p := <-fed:
			got += p
		case <-time.After(patience):
			t.Fatalf("fed %q, want early", got)
		}
	}
	b.Close()
	if err := e.wantClosed(t); err != ErrTruncated {
		t.Errorf("closed with %v, want ErrTruncated", err)
	}
	e.wantServed(t)
}

// hold runs a client's handshake and keeps its last flight.
func (x *tap) hold(handshake func() error) {
	first := true
	hello := x.Conn
	x.Conn = writeHook{hello, func(p []byte) (int, error) {
		if first {
			first = false
			return hello.Write(p)
		}
		return x.kept.Write(p)
	}}
	handshake()
	x.keep = true
}

type writeHook struct {
	net.Conn
	f func(p []byte) (int, error)
}

func (w writeHook) Write(p []byte) (int, error) { return w.f(p) }

// A FIN without close_notify may be a cut, and is an error; with it, it is not.
func TestTruncation(t *testing.T) {
	for _, tc := range []struct {
		name   string
		notify bool
		want   error
	}{{"without close_notify", false, ErrTruncated}, {"with close_notify", true, nil}} {
		t.Run(tc.name, func(t *testing.T) {
			c, far, raw := tlsPair(t, Options{})
			e := newEngine()
			serve(c, e)
			if tc.notify {
				far.CloseWrite()
			}
			raw.CloseWrite()
			if err := e.wantClosed(t); err != tc.want {
				t.Errorf("closed with %v, want %v", err, tc.want)
			}
			raw.Close()
			e.wantServed(t)
		})
	}
}

// What follows close_notify is ignored (RFC 8446, section 6.1).
func TestAfterCloseNotify(t *testing.T) {
	c, far, raw := tlsPair(t, Options{})
	e := newEngine()
	e.onEOF = func(*turn.Turn) bool { return true }
	e.onFeed = func(*turn.Turn, []byte) error { return errors.New("fed") }
	serve(c, e)
	far.CloseWrite()
	await(t, "EOF", e.eof)
	raw.SetDeadline(time.Now().Add(patience)) // which CloseWrite has let pass
	raw.Write(bytes.Repeat([]byte("rubbish"), 10000))
	until(t, "the rubbish is read", func() bool { return c.Stats().BytesIn > 70000 })
	c.Run(func(tn *turn.Turn) { c.Write(tn, []byte("answer")); c.CloseWrite(tn) })
	if all, err := io.ReadAll(far); string(all) != "answer" || err != nil {
		t.Errorf("the peer reads %q, %v; want answer", all, err)
	}
	if err := e.wantClosed(t); err != nil {
		t.Errorf("closed with %v, want nil", err)
	}
	raw.Close()
	e.wantServed(t)
}

// A record that does not decrypt ends the connection; the peer hears the alert.
func TestBadRecord(t *testing.T) {
	for _, tc := range []struct{ name, bytes, alert string }{
		{"forged", "\x17\x03\x03\x00\x20" + strings.Repeat("x", 32), "bad record MAC"},
		{"oversized", "\x17\x03\x03\xff\xff", "oversized"},
		{"not TLS", "GET / HTTP/1.1\r\n\r\n", "protocol version"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, far, raw := tlsPair(t, Options{})
			e := newEngine()
			serve(c, e)
			c.Run(func(tn *turn.Turn) { c.Write(tn, []byte("hello")) })
			raw.Write([]byte(tc.bytes))
			if err := e.wantClosed(t); !contains(err, "tls: ") {
				t.Errorf("closed with %v, want an error of tls", err)
			}
			all, err := io.ReadAll(far)
			if string(all) != "hello" || !contains(err, "tls: ") {
				t.Errorf("the peer reads %q, %v; want hello and an alert", all, err)
			}
			raw.Close()
			e.wantServed(t)
		})
	}
}

// A handshake that fails says why at once and closes; one that is not answered
// ends with its context.
func TestHandshakeFails(t *testing.T) {
	server, _ := tlsConfigs(t)
	t.Run("not TLS", func(t *testing.T) {
		a, b := sockets(t)
		c := NewTLS(a, func(nc net.Conn) *tls.Conn { return tls.Server(nc, server) }, Options{})
		b.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		if err := c.Handshake(context.Background()); !contains(err, "first record does not look like a TLS handshake") {
			t.Errorf("handshake with HTTP: %v", err)
		}
		io.Copy(io.Discard, b) // ends: the transport is closed
	})
	t.Run("silence", func(t *testing.T) {
		a, _ := sockets(t)
		c := NewTLS(a, func(nc net.Conn) *tls.Conn { return tls.Server(nc, server) }, Options{})
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		if err := c.Handshake(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("handshake with silence: %v, want the context's error", err)
		}
	})
}

// A peer changes its keys and asks us to change ours, in the middle of data:
// the answer leaves without anybody writing.
func TestKeyUpdate(t *testing.T) {
	c, far, _, secrets := tapped(t, Options{})
	if s := c.ConnectionState().CipherSuite; s != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("suite %#x: the test speaks AES-128-GCM only", s)
	}
	e := newEngine()
	fed := make(chan string, 10)
	e.onFeed = func(_ *turn.Turn, p []byte) error { fed <- string(p); return nil }
	serve(c, e)
	want := func(s string) {
		t.Helper()
		select {
		case got := <-fed:
			if got != s {
				t.Errorf("fed %q, want %q", got, s)
			}
		case <-time.After(patience):
			t.Fatalf("nothing was fed, want %q", s)
		}
	}
	w := newRecordWriter(t, secretOf(t, secrets, "CLIENT_TRAFFIC_SECRET_0"))
	raw := c.peerOf(t, far)
	raw.Write(w.record(23, []byte("before")))
	want("before")
	written := c.Stats().BytesOut
	raw.Write(w.record(22, []byte{24, 0, 0, 1, 1})) // KeyUpdate, update_requested: RFC 8446, section 4.6.3
	until(t, "the answer leaves", func() bool { return c.Stats().BytesOut > written })
	w.update(t)
	raw.Write(w.record(23, []byte("after")))
	want("after")
	c.Run(func(tn *turn.Turn) { c.Write(tn, []byte("with new keys")) })
	got := make([]byte, 13)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "with new keys" {
		t.Errorf("the peer reads %q, %v", got, err)
	}
	// The control: with the old keys the record would not decrypt.
	old := newRecordWriter(t, secretOf(t, secrets, "CLIENT_TRAFFIC_SECRET_0"))
	old.seq = 2
	raw.Write(old.record(23, []byte("stale")))
	if err := e.wantClosed(t); !contains(err, "bad record MAC") {
		t.Errorf("closed with %v, want bad record MAC", err)
	}
	raw.Close()
	e.wantServed(t)
}

// A peer that asks for key updates, never reads, and sends a little data in
// between so that crypto/tls does not lose patience, is bounded.
func TestAnswersBounded(t *testing.T) {
	for _, tc := range []struct {
		waiting int
		want    error
	}{{maxAnswers, ErrAborted}, {maxAnswers + 1, errAnswers}} {
		c, far, raw := tlsPair(t, Options{})
		e := newEngine()
		e.onFeed = func(*turn.Turn, []byte) error {
			c.rec.Write(make([]byte, tc.waiting)) // as crypto/tls does
			return nil
		}
		serve(c, e)
		far.Write([]byte("x"))
		until(t, "the record is handled", func() bool {
			select {
			case <-e.closed:
				return true
			default:
				return c.Stats().BytesOut > 0
			}
		})
		c.Run(func(tn *turn.Turn) { c.Abort(tn, 0) })
		if err := e.wantClosed(t); err != tc.want {
			t.Errorf("%d bytes of answers: closed with %v, want %v", tc.waiting, err, tc.want)
		}
		raw.Close()
		e.wantServed(t)
	}
}

// All records of a flush leave in one write.
func TestOneWritePerFlush(t *testing.T) {
	c, far, _ := tlsPair(t, Options{})
	before := c.Stats().Writes
	c.Run(func(tn *turn.Turn) {
		for range 60 {
			c.Write(tn, make([]byte, 1000))
		}
	})
	if _, err := io.ReadFull(far, make([]byte, 60000)); err != nil {
		t.Fatal(err)
	}
	if got := c.Stats().Writes - before; got != 1 {
		t.Errorf("%d writes for four records, want 1", got)
	}
	c.nc.Close()
}

// peerOf returns the socket at the far end.
func (c *Conn) peerOf(t *testing.T, far *tls.Conn) net.Conn {
	t.Helper()
	return far.NetConn().(*tap).Conn
}

// A recordWriter makes TLS 1.3 records, because crypto/tls sends no KeyUpdate of
// its own accord.
type recordWriter struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newRecordWriter(t *testing.T, secret []byte) *recordWriter {
	w := &recordWriter{secret: secret}
	block, err := aes.NewCipher(expandLabel(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	w.aead, _ = cipher.NewGCM(block)
	w.iv = expandLabel(t, secret, "iv", 12)
	return w
}

func (w *recordWriter) update(t *testing.T) {
	*w = *newRecordWriter(t, expandLabel(t, w.secret, "traffic upd", 32))
}

func (w *recordWriter) record(typ byte, p []byte) []byte {
	nonce := bytes.Clone(w.iv)
	for i, b := range binary.BigEndian.AppendUint64(nil, w.seq) {
		nonce[4+i] ^= b
	}
	w.seq++
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(p)+1+16))
	return w.aead.Seal(head, nonce, append(bytes.Clone(p), typ), head)
}

// expandLabel is HKDF-Expand-Label of RFC 8446, section 7.1.
func expandLabel(t *testing.T, secret []byte, label string, n int) []byte {
	t.Helper()
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(append(info, "tls13 "...), label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func secretOf(t *testing.T, log *bytes.Buffer, label string) []byte {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			s, _ := hex.DecodeString(f[2])
			return s
		}
	}
	t.Fatalf("no %s in the key log", label)
	return nil
}
