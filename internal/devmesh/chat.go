package devmesh

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Opcodes and bits of WebSocket's frames (RFC 6455, section 5.2).
const (
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xa
	opMask   = 0xf
	maskedAt = 0x80
)

// chat switches to WebSocket (RFC 6455, section 4.2.2) and sends each message back.
func chat(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("upgrade"), "websocket") {
		http.Error(w, "no upgrade to websocket", http.StatusUpgradeRequired)
		return
	}
	nc, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer nc.Close()
	sum := sha1.Sum([]byte(r.Header.Get("sec-websocket-key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	for err = buf.Flush(); err == nil; {
		err = echoFrame(buf)
	}
}

// echoFrame sends one frame back: what came masked goes unmasked (RFC 6455, section
// 5.1). The client's close is answered with the same, and is io.EOF.
func echoFrame(rw *bufio.ReadWriter) error {
	op, n, mask, err := readFrameHead(rw.Reader)
	if err != nil {
		return err
	}
	kind := op & opMask
	if kind == opPing {
		op += opPong - opPing
	}
	rw.Write(appendFrameHead(nil, op, n))
	block := make([]byte, min(n, 32<<10))
	for at := uint64(0); at < n; {
		p := block[:min(n-at, uint64(len(block)))]
		if _, err := io.ReadFull(rw, p); err != nil {
			return err
		}
		unmask(p, mask, at)
		at += uint64(len(p))
		rw.Write(p) // Flush tells of errors
	}
	if err := rw.Flush(); err != nil || kind != opClose {
		return err
	}
	return io.EOF
}

func readFrameHead(r io.Reader) (op byte, n uint64, mask [4]byte, err error) {
	var b [8]byte
	if _, err = io.ReadFull(r, b[:2]); err != nil {
		return 0, 0, mask, err
	}
	op, n = b[0], uint64(b[1]&^maskedAt)
	if b[1]&maskedAt == 0 {
		return 0, 0, mask, errors.New("a client's frame is not masked")
	}
	more := map[uint64]int{126: 2, 127: 8}[n]
	if _, err = io.ReadFull(r, b[8-more:]); err != nil {
		return 0, 0, mask, err
	}
	if more > 0 {
		clear(b[:8-more])
		n = binary.BigEndian.Uint64(b[:])
	}
	_, err = io.ReadFull(r, mask[:])
	return op, n, mask, err
}

func appendFrameHead(b []byte, op byte, n uint64) []byte {
	switch {
	case n < 126:
		return append(b, op, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, op, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, op, 127), n)
}

// unmask takes a mask off, or puts it on, bytes that begin at at in their frame.
func unmask(p []byte, mask [4]byte, at uint64) {
	for i := range p {
		p[i] ^= mask[(at+uint64(i))%4]
	}
}

// maskedFrame is a client's frame.
func maskedFrame(op byte, payload []byte) []byte {
	mask := [4]byte{1, 2, 3, 4}
	b := appendFrameHead(nil, op, uint64(len(payload)))
	b[1] |= maskedAt
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, payload...)
	unmask(b[at:], mask, 0)
	return b
}
