package proxy

import (
	"encoding/binary"
	"testing"
)

// frame is one gRPC message.
func frame(n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(n)), make([]byte, n)...)
}

// FuzzMessages: however a body is cut, its messages are counted once they have
// begun.
func FuzzMessages(f *testing.F) {
	f.Add([]byte{0, 1, 200, 5}, uint8(3))
	f.Add([]byte{255, 255}, uint8(1))
	f.Fuzz(func(t *testing.T, sizes []byte, cut uint8) {
		var body []byte
		for _, n := range sizes {
			body = append(body, frame(int(n))...)
		}
		whole, cuts := messages{counts: true}, messages{counts: true}
		whole.feed(body)
		for rest, n := body, int(cut)+1; len(rest) > 0; {
			n = min(n, len(rest))
			cuts.feed(rest[:n])
			rest = rest[n:]
		}
		if int(whole.n) != len(sizes) || whole != cuts {
			t.Errorf("%d messages: %+v whole, %+v in pieces", len(sizes), whole, cuts)
		}
	})
}

func TestMessagesCountsOnlyWhenTold(t *testing.T) {
	var m messages
	if m.feed(frame(3)); m != (messages{}) {
		t.Errorf("got %+v", m)
	}
	m = messages{counts: true}
	if m.feed([]byte{0, 0, 0, 0}); m.n != 0 {
		t.Error("a prefix cut short is no message")
	}
	if m.feed([]byte{9}); m.n != 1 || m.left != 9 {
		t.Errorf("got %+v", m)
	}
}
