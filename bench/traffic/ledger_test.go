package traffic

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// A thief passes frames on between a client and a tunnel's end. Once streams
// have been reset it takes some bytes off one grant of connection window.
type thief struct {
	fromClient, fromEnd uint32 // what to take of what each of them grants
	resets              atomic.Int32
}

func (th *thief) serve(l net.Listener, to string, server, client *tls.Config) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		up, err := tls.Dial("tcp", to, client)
		if err != nil {
			nc.Close()
			return
		}
		down := tls.Server(nc, server)
		go th.pass(up, down, len(preface), th.fromClient)
		go th.pass(down, up, 0, th.fromEnd)
	}
}

func (th *thief) pass(dst, src net.Conn, first int, take uint32) {
	defer dst.Close()
	defer src.Close()
	r := bufio.NewReader(src)
	if _, err := io.CopyN(dst, r, int64(first)); err != nil {
		return
	}
	var b []byte
	for {
		b = append(b[:0], make([]byte, frameHead)...)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		b = append(b, make([]byte, int(b[0])<<16|int(b[1])<<8|int(b[2]))...)
		if _, err := io.ReadFull(r, b[frameHead:]); err != nil {
			return
		}
		switch typ, id := b[3], binary.BigEndian.Uint32(b[5:]); {
		case typ == frameReset:
			th.resets.Add(1)
		case typ == frameWindowUpdate && id == 0 && th.resets.Load() > 20 && take > 0:
			binary.BigEndian.PutUint32(b[frameHead:], binary.BigEndian.Uint32(b[frameHead:])-take)
			take = 0
		}
		if _, err := dst.Write(b); err != nil {
			return
		}
	}
}

// A single byte that windows lose on either side is found, and said where.
func TestLedgerFindsLosses(t *testing.T) {
	if testing.Short() {
		t.Skip("tens of megabytes in frames of 8 KiB")
	}
	c := certs(t)
	server, client, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name                string
		fromClient, fromEnd uint32
		want                Lost
	}{
		{"nothing is lost", 0, 0, Lost{}},
		// The end, which believes the thief, sends a byte less to the client and
		// finds its own window smaller.
		{"of what the client grants", 1, 0, Lost{ToClient: 1, FromEnd: 1}},
		{"of what the end grants", 0, 1000, Lost{ToEnd: 1000, FromClient: 1000}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, front := listen(t), listen(t)
			end := &LedgerEnd{}
			go end.Serve(l, server)
			go (&thief{fromClient: tc.fromClient, fromEnd: tc.fromEnd}).serve(front, l.Addr().String(), server, client)
			got, err := (&Ledger{front.Addr().String(), "10.96.0.10:80", client, end, 100}).Count(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if (got.Sum() == 0) != (tc.want == Lost{}) {
				t.Errorf("the sum of %+v is %d", got, got.Sum())
			}
		})
	}
}

func TestLedgerNeedsATunnel(t *testing.T) {
	_, client, err := certs(t).TLS()
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t)
	l.Close()
	if _, err := (&Ledger{l.Addr().String(), "10.96.0.10:80", client, &LedgerEnd{}, 1}).Count(t.Context()); err == nil {
		t.Error("nobody listens, and nothing was said")
	}
}
