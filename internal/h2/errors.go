package h2

import (
	"errors"
	"fmt"
)

// Error codes (RFC 9113, section 7).
const (
	CodeNoError            uint32 = 0x0
	CodeProtocol           uint32 = 0x1
	CodeInternal           uint32 = 0x2
	CodeFlowControl        uint32 = 0x3
	CodeSettingsTimeout    uint32 = 0x4
	CodeStreamClosed       uint32 = 0x5
	CodeFrameSize          uint32 = 0x6
	CodeRefusedStream      uint32 = 0x7
	CodeCancel             uint32 = 0x8
	CodeCompression        uint32 = 0x9
	CodeConnect            uint32 = 0xa
	CodeEnhanceYourCalm    uint32 = 0xb
	CodeInadequateSecurity uint32 = 0xc
	CodeHTTP11Required     uint32 = 0xd
)

var codeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
	"STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
	"CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

// CodeName returns the name that RFC 9113 gives an error code.
func CodeName(code uint32) string {
	if int(code) < len(codeNames) {
		return codeNames[code]
	}
	return fmt.Sprintf("code 0x%x", code)
}

// What Open answers when there can be no new stream.
var (
	// ErrFull says that as many streams are open as the peer, or this end, allows.
	ErrFull = errors.New("connection has no room for another stream")
	// ErrGoneAway says that a GOAWAY was sent or received.
	ErrGoneAway = errors.New("connection is going away")
	// ErrClosed says that the connection is over.
	ErrClosed = errors.New("connection closed")
)

// Why a connection was given up by Tick; found in a ConnError with errors.Is.
var (
	ErrPingTimeout     = errors.New("peer did not answer PING in time")
	ErrSettingsTimeout = errors.New("peer did not acknowledge SETTINGS in time")
)

// A ConnError ends the connection. This end found it; GOAWAY tells the peer.
type ConnError struct {
	Code   uint32
	Reason string
	Err    error // the named error, if there is one
}

func (e *ConnError) Error() string {
	return "HTTP/2 connection error " + CodeName(e.Code) + ": " + e.Reason
}

func (e *ConnError) Unwrap() error { return e.Err }

// A StreamError ends one stream: RST_STREAM was sent, or received if Remote.
type StreamError struct {
	Code   uint32
	Remote bool
	Reason string // what this end objected to; empty for the peer's resets and for Abort
}

func (e *StreamError) Error() string {
	switch {
	case e.Remote:
		return "stream reset by the peer, " + CodeName(e.Code)
	case e.Reason != "":
		return "stream error " + CodeName(e.Code) + ": " + e.Reason
	}
	return "stream reset, " + CodeName(e.Code)
}

// A GoAwayError ends a stream because the peer sent GOAWAY: at once for a
// stream beyond the last one it will process (Unprocessed), or when the
// connection went down after a GOAWAY that named an error.
type GoAwayError struct {
	Code        uint32
	Unprocessed bool
	Debug       string
}

func (e *GoAwayError) Error() string {
	s := "peer went away, " + CodeName(e.Code)
	if e.Debug != "" {
		s += fmt.Sprintf(" (%.64q)", e.Debug)
	}
	if e.Unprocessed {
		s += ", stream not processed"
	}
	return s
}

// Unprocessed reports whether err, from Closed or Open, says that the peer has
// not begun to process the stream, so that trying again is safe.
func Unprocessed(err error) bool {
	if s, ok := errors.AsType[*StreamError](err); ok {
		return s.Remote && s.Code == CodeRefusedStream
	}
	if g, ok := errors.AsType[*GoAwayError](err); ok {
		return g.Unprocessed
	}
	return errors.Is(err, ErrFull) || errors.Is(err, ErrGoneAway) || errors.Is(err, ErrClosed)
}
