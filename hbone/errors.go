package hbone

import (
	"errors"
	"fmt"
)

// Errors of tunnels. Each names what was being done; callers add to whom.
var (
	// ErrClosed says that this end gave the tunnel or the pool up.
	ErrClosed = errors.New("tunnel closed here")
	// ErrLocalAbort ends a tunnel whose own side called Abort.
	ErrLocalAbort = errors.New("tunnel aborted here")
	// ErrLater is no error: the owner of a server answers CONNECT later.
	ErrLater = errors.New("answered later")
	// ErrOverCap refuses a connection beyond the connection cap.
	ErrOverCap = errors.New("connection cap reached")
	// ErrOverMemory refuses or ends a connection because memory is short.
	ErrOverMemory = errors.New("memory is short")
	// ErrHeldOff refuses a connection of an address from which floods came.
	ErrHeldOff = errors.New("held off after a flood")
)

// A Refusal is a far end's answer to CONNECT other than 200, or ours to give.
// Status follows Istio's node tunnels: 400 malformed or not ours, 401 denied,
// 503 cannot be reached now.
type Refusal struct {
	Status int
	Reason string
}

func (r *Refusal) Error() string {
	if r.Reason == "" {
		return fmt.Sprintf("CONNECT refused with status %d", r.Status)
	}
	return fmt.Sprintf("CONNECT refused with status %d: %s", r.Status, r.Reason)
}

// A ResetError says that the far end reset the tunnel's stream.
type ResetError struct{ Code uint32 }

// HTTP/2 error codes that tunnels use (RFC 9113, section 7).
const (
	CodeNoError       uint32 = 0x0
	CodeProtocol      uint32 = 0x1
	CodeInternal      uint32 = 0x2
	CodeStreamClosed  uint32 = 0x5
	CodeRefusedStream uint32 = 0x7
	CodeCancel        uint32 = 0x8
	CodeConnect       uint32 = 0xa
	CodeCalm          uint32 = 0xb
)

func (e *ResetError) Error() string {
	return fmt.Sprintf("tunnel reset by the far end, code %d", e.Code)
}

// Clean reports whether node tunnels mean an ordinary end by this reset: they
// send CANCEL when they drop a stream whose application has gone.
func (e *ResetError) Clean() bool { return e.Code == CodeNoError || e.Code == CodeCancel }

// An UnprocessedError says that the far end never saw the CONNECT: it was
// refused before processing or lay beyond its GOAWAY. Trying again is safe.
type UnprocessedError struct {
	GoneAway bool // it lay beyond a GOAWAY
	Err      error
}

func (e *UnprocessedError) Error() string { return "tunnel not processed: " + e.Err.Error() }
func (e *UnprocessedError) Unwrap() error { return e.Err }

// A DialError says that no transport connection could be made.
type DialError struct {
	Addr    string
	Timeout bool
	Err     error
}

func (e *DialError) Error() string {
	if e.Timeout {
		return fmt.Sprintf("connect to %s: no answer in time; a NetworkPolicy may drop the port: %v", e.Addr, e.Err)
	}
	return fmt.Sprintf("connect to %s: %v", e.Addr, e.Err)
}
func (e *DialError) Unwrap() error { return e.Err }

// A HandshakeError says that the transport stands but TLS does not.
type HandshakeError struct {
	Addr string
	Err  error
}

func (e *HandshakeError) Error() string { return fmt.Sprintf("TLS with %s: %v", e.Addr, e.Err) }
func (e *HandshakeError) Unwrap() error { return e.Err }

// WrongIdentity reports whether TLS failed because the far end is somebody else.
func (e *HandshakeError) WrongIdentity() bool {
	t, ok := errors.AsType[*TLSError](e.Err)
	return ok && t.Reason == TLSWrongIdentity
}
