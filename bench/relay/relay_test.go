package relay

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// frozen are the hashes of the yardsticks' source. Ratios to a relay mean
// something over time only if the relay stays what it was: a change here needs
// the ratios before and after in its commit.
var frozen = map[string]string{
	"byte.go": "e7d27b9edce172e40b0548edaca75de287a3c8462b8a8e114d8aff16391f1b1b",
	"tls.go":  "82c668072c25d95a6e484e2bfc41ca359aa90029487392fa60b3d53c64d0907a",
}

func TestFrozen(t *testing.T) {
	for file, want := range frozen {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%s is not the relay that figures were taken with: hash %s, want %s", file, got, want)
		}
	}
}

// echoServer sends back what it gets.
func echoServer(t *testing.T) string {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

const header = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0f\x0a\x01\x00\x05\x0a\x60\x00\x0a\x9c\x40\x00\x50\xd0\x00\x00"

func TestByte(t *testing.T) {
	l := listen(t)
	go Byte(l, echoServer(t))
	c := dial(t, l)
	for i, text := range []string{header + "hello", "again", string(bytes.Repeat([]byte("x"), 16<<10))} {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		want := text
		if i == 0 {
			want = text[len(header):]
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Fatalf("message %d: got %.40q, want %.40q", i, got, want)
		}
	}
}

func TestByteWantsHeader(t *testing.T) {
	l := listen(t)
	go Byte(l, echoServer(t))
	c := dial(t, l)
	io.WriteString(c, "GET / HTTP/1.1\r\nhost: x\r\n\r\n")
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes, want the connection closed", n)
	}
}
