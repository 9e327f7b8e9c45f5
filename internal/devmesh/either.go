package devmesh

import (
	"crypto/tls"
	"net"
	"sync"
)

// recordHandshake is the first byte of TLS (RFC 8446, section 5.1), and of no
// request in HTTP.
const recordHandshake = 0x16

// An eitherListener accepts connections that may begin with TLS or without: what
// speaks to an echo decides.
type eitherListener struct {
	net.Listener
	config *tls.Config
}

func (l eitherListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &eitherConn{Conn: nc, config: l.config}, nil
}

// An eitherConn finds out at its first read, which servers do before they write.
type eitherConn struct {
	net.Conn
	config *tls.Config
	once   sync.Once
	inside net.Conn // TLS, or the connection itself; the first byte put back
}

func (c *eitherConn) Read(p []byte) (int, error) {
	c.once.Do(func() {
		first := make([]byte, 1)
		n, err := c.Conn.Read(first)
		c.inside = &putBack{c.Conn, first[:n], err}
		if n == 1 && first[0] == recordHandshake {
			c.inside = tls.Server(c.inside, c.config)
		}
	})
	return c.inside.Read(p)
}

func (c *eitherConn) Write(p []byte) (int, error) {
	if c.inside == nil {
		return c.Conn.Write(p)
	}
	return c.inside.Write(p)
}

// A putBack is a connection of which something was read already.
type putBack struct {
	net.Conn
	first []byte
	err   error
}

func (c *putBack) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}
