//lint:file-ignore SA1019 The twin is made of x/net/http2, whose tunnels may be served one connection at a time.

package stock

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// A tunnel is a CONNECT stream as a connection. It keeps no deadlines, because
// the libraries' streams end with theirs: net/http asks for one to end a read
// that waits for the next request, and that request's first byte ends it too.
type tunnel struct {
	io.ReadCloser
	io.Writer
	flush  func() error
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

// newServerTunnel accepts a CONNECT.
func newServerTunnel(w http.ResponseWriter, r *http.Request) (*tunnel, error) {
	rc := http.NewResponseController(w)
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return nil, err
	}
	return &tunnel{ReadCloser: r.Body, Writer: w, flush: rc.Flush, closed: make(chan struct{}), addr: tunnelAddr(r.RemoteAddr)}, nil
}

// Tunnels opens tunnels through a node tunnel or a waypoint. Mesh connections are
// kept for the next tunnel, and left behind when they are asked to go away.
type Tunnels struct {
	transport *http2.Transport
	through   string
}

// NewTunnels opens tunnels through what listens at addr.
func NewTunnels(addr string, client *tls.Config) *Tunnels {
	return &Tunnels{&http2.Transport{TLSClientConfig: client}, addr}
}

// Close ends mesh connections that no tunnel uses.
func (t *Tunnels) Close() { t.transport.CloseIdleConnections() }

// Dial opens a tunnel to addr.
func (t *Tunnels) Dial(ctx context.Context, addr string) (net.Conn, error) {
	in, out := io.Pipe()
	r := (&http.Request{
		Method: http.MethodConnect, Host: addr, Header: http.Header{}, Body: in, ContentLength: -1,
		URL: &url.URL{Scheme: "https", Host: t.through},
	}).WithContext(context.WithoutCancel(ctx)) // the tunnel outlives the request that needed it first
	res, err := t.transport.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("open a tunnel to %s: %w", addr, err)
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, fmt.Errorf("open a tunnel to %s: %s", addr, res.Status)
	}
	return &tunnel{ReadCloser: res.Body, Writer: out, closed: make(chan struct{}), addr: tunnelAddr(addr)}, nil
}

func (c *tunnel) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	if err == nil && c.flush != nil {
		err = c.flush()
	}
	return n, err
}

func (c *tunnel) Close() error {
	c.once.Do(func() { close(c.closed) })
	err := c.ReadCloser.Close()
	if w, ok := c.Writer.(io.Closer); ok {
		err = errors.Join(err, w.Close())
	}
	return err
}

func (c *tunnel) LocalAddr() net.Addr            { return c.addr }
func (c *tunnel) RemoteAddr() net.Addr           { return c.addr }
func (*tunnel) SetDeadline(time.Time) error      { return nil }
func (*tunnel) SetReadDeadline(time.Time) error  { return nil }
func (*tunnel) SetWriteDeadline(time.Time) error { return nil }

// A tunnelAddr is an address that nothing listens on.
type tunnelAddr string

func (tunnelAddr) Network() string  { return "tcp" }
func (a tunnelAddr) String() string { return string(a) }

// ends hands tunnels to a server as if it had accepted them.
type ends struct {
	addr  net.Addr
	conns chan net.Conn
}

func (e *ends) Accept() (net.Conn, error) { return <-e.conns, nil }
func (e *ends) Close() error              { return nil }
func (e *ends) Addr() net.Addr            { return e.addr }

// headed accepts connections that begin with a PROXY header.
type headed struct {
	net.Listener
	service string
}

func (l headed) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &headedConn{Conn: c, service: l.service}, nil
}

// A headedConn reads its header before anything else.
type headedConn struct {
	net.Conn
	service string
	read    bool
}

func (c *headedConn) Read(p []byte) (int, error) {
	if !c.read {
		destination, err := readHeader(c.Conn)
		if err == nil && destination.String() != c.service {
			err = fmt.Errorf("%s is no service", destination)
		}
		if err != nil {
			return 0, err
		}
		c.read = true
	}
	return c.Conn.Read(p)
}

// signature begins every PROXY v2 header.
const signature = "\r\n\r\n\x00\r\nQUIT\n"

// readHeader reads a PROXY v2 header for TCP over IPv4 and returns what the
// connection was bound for. It skips source and TLVs.
func readHeader(r io.Reader) (destination netip.AddrPort, err error) {
	var h [28]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return
	}
	n := int64(binary.BigEndian.Uint16(h[14:]))
	if string(h[:12]) != signature || h[12] != 0x21 || h[13] != 0x11 || n < 12 {
		return destination, errors.New("no PROXY v2 header for TCP over IPv4")
	}
	destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(h[20:24])), binary.BigEndian.Uint16(h[26:]))
	_, err = io.CopyN(io.Discard, r, n-12)
	return
}
