//go:build !linux

package wire

import "net"

// setWriteBuffer makes the socket under test full early.
func setWriteBuffer(c *Conn, n int) error { return c.nc.(*net.TCPConn).SetWriteBuffer(n) }
