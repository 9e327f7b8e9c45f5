package proxy

import (
	"math"
	"time"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// asksGRPC reports whether a request is a gRPC call, by its content type:
// application/grpc, with or without a format. Not gRPC-Web, whose clients read
// HTTP statuses.
func asksGRPC(r *message.Request) bool {
	const name = "application/grpc"
	v, _ := r.Header.ValueOf(message.ContentType)
	return len(v) >= len(name) && message.EqualFold(v[:len(name)], name) &&
		(len(v) == len(name) || v[len(name)] == '+' || v[len(name)] == ';')
}

// grpcTimeout returns how long a call may take by its own word; 0: it does not
// say. What is no time, or beyond all reason, is the endpoint's to judge.
func grpcTimeout(r *message.Request) time.Duration {
	v, ok := r.Header.ValueOf(message.GRPCTimeout)
	if !ok || len(v) < 2 || len(v) > 9 || !asksGRPC(r) {
		return 0
	}
	n := int64(0)
	for _, c := range v[:len(v)-1] {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int64(c-'0')
	}
	unit := time.Duration(0)
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	}
	if unit == 0 || n > math.MaxInt64/int64(unit) {
		return 0
	}
	return max(time.Duration(n)*unit, 1) // no time at all is over at once
}

// grpcStatusOf returns the status in a response's head; 0 if there is none.
func grpcStatusOf(r *message.Response) int {
	v, _ := r.Header.ValueOf(message.GRPCStatus)
	n := 0
	for _, c := range v {
		if c < '0' || c > '9' || n > 1000 {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// appendMessage appends a status's message, percent-encoded as gRPC has it: all but
// printable ASCII, and the percent sign.
func appendMessage(b, text []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range text {
		if c >= ' ' && c <= '~' && c != '%' {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}
