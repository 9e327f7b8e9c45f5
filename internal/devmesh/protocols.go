package devmesh

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// two is the client of HTTP/2 with prior knowledge, for one check.
func two() *http.Client {
	t := &http.Transport{Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Timeout: 10 * time.Second, Transport: t}
}

func (c *checker) http2() error {
	over := *c
	over.client = two()
	defer over.client.CloseIdleConnections()
	sent := make([]byte, 1<<20)
	rand.Read(sent)
	r, got, err := over.do(question{method: "POST", service: "cart", path: "/shop.v1.Cart/Upload", status: 200, body: bytes.NewReader(sent), head: map[string]string{"content-type": "application/grpc"}})
	if err == nil && (r.ProtoMajor != 2 || !bytes.Equal(got, sent)) {
		err = fmt.Errorf("%s, and %d bytes that are not those that were sent", r.Proto, len(got))
	}
	return err
}

// message is a gRPC message: not compressed, its length, its bytes.
const message = "\x00\x00\x00\x00\x05hello"

// grpc calls, and returns the status, from wherever it came.
func (c *checker) grpc(path string) (r *http.Response, got []byte, status string, err error) {
	over := *c
	over.client = two()
	defer over.client.CloseIdleConnections()
	r, got, err = over.do(question{method: "POST", service: "cart", path: path, status: 200, body: strings.NewReader(message),
		head: map[string]string{"content-type": "application/grpc", "te": "trailers"}})
	if err != nil {
		return nil, nil, "", err
	}
	if status = r.Trailer.Get("grpc-status"); status == "" {
		status = r.Header.Get("grpc-status") // nothing but trailers
	}
	return r, got, status, nil
}

func (c *checker) call() error {
	r, got, status, err := c.grpc("/shop.v1.Cart/AddItem")
	if err == nil && (status != "0" || string(got) != message || r.Header.Get("x-workload") != "shop/cart-a") {
		err = fmt.Errorf("status %q and message %q from %s, want 0 and the one that was sent from shop/cart-a", status, got, r.Header.Get("x-workload"))
	}
	return err
}

func (c *checker) unrouted() error {
	_, _, status, err := c.grpc("/shop.v1.Orders/Place")
	if err == nil && status != "12" {
		err = fmt.Errorf("status %q, want 12", status)
	}
	return err
}

func (c *checker) webSocket() error {
	nc, err := c.connect("reviews")
	if err != nil {
		return err
	}
	defer nc.Close()
	// Key and answer are those of RFC 6455, section 1.3.
	fmt.Fprint(nc, "GET /chat HTTP/1.1\r\nHost: reviews\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r := bufio.NewReader(nc)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("sec-websocket-accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		return fmt.Errorf("answered with %s and key %q", res.Status, res.Header.Get("sec-websocket-accept"))
	}
	message := make([]byte, 256<<10)
	rand.Read(message)
	const binaryEnd, closeEnd = 0x82, 0x88
	go func() {
		nc.Write(maskedFrame(binaryEnd, message))
		nc.Write(maskedFrame(closeEnd, nil))
	}()
	want := append(appendFrameHead(nil, binaryEnd, uint64(len(message))), message...)
	want = appendFrameHead(want, closeEnd, 0)
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes came back, and not the message that was sent and the end", len(got))
	}
	return err
}
