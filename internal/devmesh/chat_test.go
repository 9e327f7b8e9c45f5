package devmesh

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
)

// A client's frames come back unmasked, pings as pongs, and a close is the end.
func TestEchoFrame(t *testing.T) {
	const text, ping, pong, end = 0x81, 0x89, 0x8a, 0x88
	long := bytes.Repeat([]byte("0123456789"), 10_000)
	for _, row := range []struct {
		name    string
		op      byte
		payload []byte
		back    byte
		err     error
	}{
		{"text", text, []byte("hello"), text, nil},
		{"nothing", text, nil, text, nil},
		{"126 bytes", text, long[:126], text, nil},
		{"64 KiB and more", text, long, text, nil},
		{"part of a message", 0x01, []byte("hel"), 0x01, nil},
		{"ping", ping, []byte("here?"), pong, nil},
		{"close", end, []byte{3, 232}, end, io.EOF},
	} {
		t.Run(row.name, func(t *testing.T) {
			var out bytes.Buffer
			in := bytes.NewReader(maskedFrame(row.op, row.payload))
			err := echoFrame(bufio.NewReadWriter(bufio.NewReader(in), bufio.NewWriter(&out)))
			want := append(appendFrameHead(nil, row.back, uint64(len(row.payload))), row.payload...)
			if !errors.Is(err, row.err) || !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%v, and %d bytes that begin with % x; want %v, and %d that begin with % x", err,
					out.Len(), out.Bytes()[:min(out.Len(), 12)], row.err, len(want), want[:min(len(want), 12)])
			}
		})
	}
	unmasked := bytes.NewReader([]byte{text, 1, 'x'})
	if err := echoFrame(bufio.NewReadWriter(bufio.NewReader(unmasked), bufio.NewWriter(io.Discard))); err == nil {
		t.Error("a frame without a mask was taken")
	}
}
