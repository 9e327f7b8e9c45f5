package relay

import (
	"crypto/tls"
	"io"
	"net"
)

// TLS accepts mutual-TLS connections, opens one of its own to upstream for
// each and relays the bytes inside, until l is closed.
func TLS(l net.Listener, upstream string, server, client *tls.Config) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go relayTLS(tls.Server(c, server), upstream, client)
	}
}

func relayTLS(c *tls.Conn, upstream string, client *tls.Config) {
	defer c.Close()
	if err := c.Handshake(); err != nil {
		return
	}
	u, err := tls.Dial("tcp", upstream, client)
	if err != nil {
		return
	}
	defer u.Close()
	go func() {
		copyBytes(u, c)
		u.Close()
	}()
	copyBytes(c, u)
}

// copyBytes uses a buffer that takes as much as four records, though crypto/tls
// reads one at a time.
func copyBytes(dst io.Writer, src io.Reader) {
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if err != nil {
			return
		}
		if _, err := dst.Write(b[:n]); err != nil {
			return
		}
	}
}
