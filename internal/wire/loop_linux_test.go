package wire

import (
	"net"

	"golang.org/x/sys/unix"
)

// setWriteBuffer makes the socket under test full early.
func setWriteBuffer(c *Conn, n int) error {
	if d, ok := c.drv.(*polled); ok {
		return unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, n)
	}
	return c.nc.(*net.TCPConn).SetWriteBuffer(n)
}
