package peer

import (
	"encoding/hex"
	"errors"
	"fmt"
)

// A Traceparent is a checked traceparent field (W3C trace context, section
// 3.2) of 55 bytes, or empty.
type Traceparent string

// ParseTraceparent checks a traceparent field: two, 32, 16 and two lower case
// hexadecimal digits between dashes, identifiers that are not all zero, and a
// version other than ff.
func ParseTraceparent(s string) (Traceparent, error) {
	if err := checkTraceparent(s); err != nil {
		return "", fmt.Errorf("traceparent %.60q: %w", s, err)
	}
	return Traceparent(s), nil
}

func checkTraceparent(s string) error {
	if len(s) != 55 {
		return fmt.Errorf("%d bytes long, want 55", len(s))
	}
	zero := [3]bool{2: true, 1: true}
	part := 0
	for i := range len(s) {
		c := s[i]
		switch i {
		case 2, 35, 52:
			if c != '-' {
				return errors.New("want a dash after 2, 35 and 52 bytes")
			}
			part++
			continue
		}
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return errors.New("want lower case hexadecimal digits")
		}
		if c != '0' && part < len(zero) {
			zero[part] = false
		}
	}
	switch {
	case zero[1] || zero[2]:
		return errors.New("an identifier is all zero")
	case s[:2] == "ff":
		return errors.New("version ff is not allowed")
	}
	return nil
}

// NewTraceparent makes a field of version 00.
func NewTraceparent(trace [16]byte, span [8]byte, flags byte) Traceparent {
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, trace[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, span[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, []byte{flags})
	return Traceparent(b)
}

// TraceID returns the 32 digits of the trace, "" if there is none.
func (t Traceparent) TraceID() string {
	if t == "" {
		return ""
	}
	return string(t[3:35])
}

// SpanID returns the 16 digits of the parent span, "" if there is none.
func (t Traceparent) SpanID() string {
	if t == "" {
		return ""
	}
	return string(t[36:52])
}

// Sampled reports whether the caller may have recorded the trace.
func (t Traceparent) Sampled() bool {
	if t == "" {
		return false
	}
	c := t[54] // the low bit of a hexadecimal digit: 1 3 5 7 9 b d f
	return c&1 == 1 && c <= '9' || c&1 == 0 && c >= 'a'
}
