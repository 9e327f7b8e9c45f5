package traffic

import (
	"bytes"
	"errors"
	"fmt"
)

var sizeKey = []byte("?bytes=")

// A question reads requests at the answering end. It keeps the responses it
// has built, which are few, because sizes are.
type question struct {
	head   headReader
	left   int64 // of the request's body
	sizes  map[int64]*response
	answer *response
}

// feed takes bytes up to the end of one request. Once that is whole, the
// response to it, numbered, is returned.
func (q *question) feed(p []byte) (n int, r *response, err error) {
	if q.answer == nil {
		head, used, err := q.head.take(p)
		if err != nil || head == nil {
			return len(p), nil, err
		}
		if err := q.read(head); err != nil {
			return used, nil, err
		}
		n = used
	}
	skip := min(q.left, int64(len(p)-n))
	q.left -= skip
	n += int(skip)
	if q.left > 0 {
		return n, nil, nil
	}
	r, q.answer = q.answer, nil
	return n, r, nil
}

func (q *question) read(head []byte) error {
	line, _, _ := bytes.Cut(head, endOfHead[:2])
	_, after, ok := bytes.Cut(line, sizeKey)
	if !ok {
		return fmt.Errorf("request line %q names no size", line)
	}
	digits, _, _ := bytes.Cut(after, []byte(" "))
	size, err := parseSize(digits)
	if err != nil {
		return err
	}
	number := field(head, "x-echo")
	if len(number) != tokenLen {
		return errors.New("request has no number")
	}
	q.left = 0
	if v := field(head, "content-length"); v != nil {
		if q.left, err = parseSize(v); err != nil {
			return err
		}
	}
	r := q.sizes[size]
	if r == nil {
		if q.sizes == nil {
			q.sizes = make(map[int64]*response)
		}
		r = newResponse(size)
		q.sizes[size] = r
	}
	copy(r.bytes[r.number:], number)
	q.answer = r
	return nil
}
