package traffic

import (
	"bytes"
	"errors"
	"fmt"
)

var (
	errUnasked = errors.New("bytes came that nobody asked for")
	okLine     = []byte("HTTP/1.1 200")
)

// An answer checks one response: its status, its number, its length and every
// byte of its body.
type answer struct {
	number  [tokenLen]byte
	size    int64
	off     int64
	waiting bool // for a head or more of a body
	inBody  bool
	head    headReader

	call   bool // a gRPC message, which has a prefix in place of a head
	prefix []byte
}

// expect says which response comes next.
func (a *answer) expect(number [tokenLen]byte, size int64) {
	a.number, a.size, a.off, a.waiting, a.inBody = number, size, 0, true, false
	a.prefix = a.prefix[:0]
}

// feed takes received bytes; done means that the response is whole and right.
// Since nothing is asked before the answer is here, bytes beyond it are wrong.
func (a *answer) feed(p []byte) (done bool, err error) {
	if !a.waiting {
		return false, errUnasked
	}
	if !a.inBody {
		n, err := a.begin(p)
		if err != nil || !a.inBody {
			return false, err
		}
		p = p[n:]
	}
	for len(p) > 0 {
		want := body(a.off, a.size, len(p))
		if len(want) == 0 {
			return false, errUnasked
		}
		if !bytes.Equal(p[:len(want)], want) {
			return false, fmt.Errorf("body differs from what was sent, at or after byte %d", a.off)
		}
		a.off += int64(len(want))
		p = p[len(want):]
	}
	a.waiting = a.off < a.size
	return !a.waiting, nil
}

// begin reads what stands before the body, and says how much of p that was.
func (a *answer) begin(p []byte) (n int, err error) {
	if a.call {
		n = min(len(p), callPrefix+tokenLen-len(a.prefix))
		a.prefix = append(a.prefix, p[:n]...)
		if len(a.prefix) == callPrefix+tokenLen {
			a.inBody, err = true, a.checkCall()
		}
		return n, err
	}
	head, n, err := a.head.take(p)
	if err == nil && head != nil {
		a.inBody, err = true, a.check(head)
	}
	return n, err
}

func (a *answer) check(head []byte) error {
	if !bytes.HasPrefix(head, okLine) {
		line, _, _ := bytes.Cut(head, endOfHead[:2])
		return fmt.Errorf("answer is %q", line)
	}
	if got := field(head, "x-echo"); string(got) != string(a.number[:]) {
		return fmt.Errorf("answer to request %q came for %q", got, a.number[:])
	}
	size, err := parseSize(field(head, "content-length"))
	if err != nil {
		return fmt.Errorf("content-length: %w", err)
	}
	if size != a.size {
		return fmt.Errorf("answer has %d bytes, want %d", size, a.size)
	}
	return nil
}
