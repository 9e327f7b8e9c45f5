package traffic

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// source is where PROXY headers and CONNECT say that the client is.
var source = netip.MustParseAddrPort("10.1.0.5:40000")

// readBuffer is a plain stream's. Answers of 1 KiB arrive in one read; bulk
// takes what the socket has.
const readBuffer = 64 << 10

// connectPlain opens one connection for each client and starts it.
func (r *Run) connectPlain(ctx context.Context) error {
	var head []byte
	if r.plan.Via == ViaProxy {
		dst, err := netip.ParseAddrPort(r.plan.To)
		if err != nil {
			return fmt.Errorf("plan's destination: %w", err)
		}
		head = ProxyHeader(source, dst, r.plan.Identity)
	}
	dialer := net.Dialer{Timeout: 5 * time.Second}
	for _, g := range r.groups {
		for _, c := range g.clients {
			nc, err := dialer.DialContext(ctx, "tcp", r.plan.Addr)
			if err != nil {
				return fmt.Errorf("connect to the proxy: %w", err)
			}
			r.atEnd(func() { nc.Close() })
			r.active.Add(1)
			turn := make(chan struct{})
			c.once = func() { turn <- struct{}{} }
			r.wg.Go(func() {
				c.converse(nc, head, turn)
				r.active.Add(-1)
			})
		}
	}
	return nil
}

// converse asks and listens until the connection ends.
func (c *client) converse(nc net.Conn, head []byte, turn <-chan struct{}) {
	buf := make([]byte, min(readBuffer, max(8<<10, c.group.Answer)))
	for c.await(turn) {
		if err := c.exchange(nc, buf, head); err != nil {
			c.run.fail("stream %d (%s): %v", c.id, c.group.Name, err)
			return
		}
		head = nil
	}
}

// await holds the stream while the run rests and it is not the stream's turn,
// and reports whether it goes on.
func (c *client) await(turn <-chan struct{}) bool {
	r := c.run
	for {
		switch r.phase.Load() {
		case stopping:
			return false
		case warming, counting:
			return true
		}
		gate := r.opened()
		if r.phase.Load() == resting { // else the gate is the one after
			r.active.Add(-1)
			select {
			case <-gate:
				r.active.Add(1)
			case <-turn:
				r.active.Add(1)
				return true
			}
		}
	}
}

// exchange asks once and reads the answer.
func (c *client) exchange(nc net.Conn, buf, head []byte) error {
	ask := c.ask(time.Now())
	if head != nil {
		ask = append(head[:len(head):len(head)], ask...)
	}
	if _, err := nc.Write(ask); err != nil {
		return err
	}
	if err := c.upload(nc); err != nil {
		return err
	}
	for {
		n, err := nc.Read(buf)
		if err == io.EOF {
			return fmt.Errorf("connection was closed under request %d", c.seq)
		}
		if err != nil {
			return err
		}
		done, err := c.got(buf[:n])
		if err != nil {
			return err
		}
		if done {
			c.complete(time.Now())
			return nil
		}
	}
}

// upload writes the request's body.
func (c *client) upload(w io.Writer) error {
	for off := int64(0); off < c.group.Upload; {
		n, err := w.Write(body(off, c.group.Upload, 64<<10))
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
