package hbone

import (
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"strings"
	"sync/atomic"
)

// A TLSReason says why a handshake failed.
type TLSReason uint8

// The reasons. Their names are labels of metrics.
const (
	TLSOther            TLSReason = iota // lost, timed out, or not known here
	TLSNotTLS                            // the other end does not speak TLS
	TLSVersion                           // it speaks no TLS 1.3
	TLSNoALPN                            // it does not offer h2
	TLSNoCertificate                     // it presented no certificate
	TLSUnknownAuthority                  // no root vouches for its certificate
	TLSExpired                           // its certificate is not valid now
	TLSBadCertificate                    // its certificate is not a workload's
	TLSWrongTrustDomain                  // its trust domain is neither ours nor an alias
	TLSWrongIdentity                     // it is not whom we meant to reach
	TLSRevoked                           // its certificate or its authority's is revoked
	TLSOwnCertificate                    // ours is missing or has expired
	TLSRefusedByPeer                     // it sent an alert
	tlsReasons
)

// String returns the reason's label.
func (r TLSReason) String() string {
	names := [tlsReasons]string{
		"other", "not_tls", "version", "no_alpn", "no_certificate", "unknown_authority", "expired", "bad_certificate",
		"wrong_trust_domain", "wrong_identity", "revoked", "own_certificate", "refused_by_peer",
	}
	if int(r) >= len(names) {
		return "other"
	}
	return names[r]
}

// A TLSError is a failed handshake whose reason is known.
type TLSError struct {
	Reason TLSReason
	Err    error
}

func (e *TLSError) Error() string { return e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

func tlsErrorf(r TLSReason, format string, args ...any) error {
	return &TLSError{r, fmt.Errorf(format, args...)}
}

// ReasonOf returns why a handshake failed.
func ReasonOf(err error) TLSReason { return explain(err).Reason }

// explain finds the reason of an error that a handshake or a read on a TLS
// connection returned, and gives crypto/tls's terse ones a sentence.
func explain(err error) *TLSError {
	if e, ok := errors.AsType[*TLSError](err); ok {
		return &TLSError{e.Reason, err}
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		what := "not TLS"
		if h := string(e.RecordHeader[:]); strings.HasPrefix(h, "GET ") || strings.HasPrefix(h, "POST") || strings.HasPrefix(h, "PRI ") || strings.HasPrefix(h, "HTTP") {
			what = "plain HTTP"
		}
		return &TLSError{TLSNotTLS, fmt.Errorf("the peer speaks %s where mutual TLS is spoken: %w", what, err)}
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" {
		return &TLSError{TLSRefusedByPeer, fmt.Errorf("the peer refused us, most often because of our certificate, trust domain or identity: %w", err)}
	}
	// crypto/tls gives these no type; a test holds their words.
	switch s := err.Error(); {
	case strings.Contains(s, "client didn't provide a certificate"):
		return &TLSError{TLSNoCertificate, fmt.Errorf("the peer presented no certificate: %w", err)}
	case strings.Contains(s, "unsupported application protocols"), strings.Contains(s, "unadvertised ALPN protocol"):
		return &TLSError{TLSNoALPN, fmt.Errorf("the peer does not offer ALPN %q: %w", alpn, err)}
	case strings.Contains(s, "unsupported versions"), strings.Contains(s, "unsupported protocol version"):
		return &TLSError{TLSVersion, fmt.Errorf("the peer does not speak TLS 1.3: %w", err)}
	}
	return &TLSError{TLSOther, err}
}

// TLSFaults count failed handshakes by reason. The zero value is ready.
type TLSFaults struct {
	n [tlsReasons]atomic.Int64
}

// Explain counts a failed handshake and returns its error as a *TLSError, in a
// sentence.
func (f *TLSFaults) Explain(err error) error {
	e := explain(err)
	f.n[e.Reason].Add(1)
	return e
}

// Count returns how many handshakes failed for a reason.
func (f *TLSFaults) Count(r TLSReason) int64 { return f.n[r].Load() }

// All yields every reason with its count, those that never happened too.
func (f *TLSFaults) All() iter.Seq2[TLSReason, int64] {
	return func(yield func(TLSReason, int64) bool) {
		for r := range tlsReasons {
			if !yield(r, f.n[r].Load()) {
				return
			}
		}
	}
}
