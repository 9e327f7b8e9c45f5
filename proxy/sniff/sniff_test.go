package sniff

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// firsts are what clients of many protocols send first, and what that is. after
// is how many bytes settle it; 0: all of them.
var firsts = []struct {
	name  string
	bytes string
	want  Verdict
	after int
}{
	{"HTTP/1.1", "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", Verdict{HTTP1, RequestLine}, len("GET /a?b=c HTTP/1.")},
	{"HTTP/1.0", "HEAD / HTTP/1.0\r\n\r\n", Verdict{HTTP1, RequestLine}, len("HEAD / HTTP/1.")},
	{"HTTP/1, any method", "VERSION-CONTROL http://a/b HTTP/1.1\r\n", Verdict{HTTP1, RequestLine}, len("VERSION-CONTROL http://a/b HTTP/1.")},
	{"HTTP/1, CONNECT", "CONNECT a:443 HTTP/1.1\r\n", Verdict{HTTP1, RequestLine}, len("CONNECT a:443 HTTP/1.")},
	{"HTTP/1, OPTIONS *", "OPTIONS * HTTP/1.1\r\n", Verdict{HTTP1, RequestLine}, len("OPTIONS * HTTP/1.")},
	{"HTTP/1 behind an empty line", "\r\nPOST /x HTTP/1.1\r\n", Verdict{HTTP1, RequestLine}, len("\r\nPOST /x HTTP/1.")},
	{"HTTP/1, PRI as a method", "PRI * HTTP/1.1\r\n", Verdict{HTTP1, RequestLine}, len("PRI * HTTP/1.")},
	{"HTTP/1, a long target", "GET /" + strings.Repeat("x", 8000) + " HTTP/1.1\r\n", Verdict{HTTP1, RequestLine}, 8005 + len(" HTTP/1.")},
	{"HTTP/2", preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00", Verdict{HTTP2, Preface}, len(preface)},
	{"TLS 1.3", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Verdict{TLS, ClientHello}, 6},
	{"TLS in small records", "\x16\x03\x03\x00\x01\x01", Verdict{TLS, ClientHello}, 6},
	{"TLS, another message", "\x16\x03\x01\x02\x00\x02", Verdict{Opaque, NotHTTP}, 6},
	{"TLS, record too long", "\x16\x03\x01\x40\x01\x01", Verdict{Opaque, NotHTTP}, 5},
	{"TLS, an empty record", "\x16\x03\x01\x00\x00\x01", Verdict{Opaque, NotHTTP}, 5},
	{"TLS, no version", "\x16\x02\x01\x00\x10\x01", Verdict{Opaque, NotHTTP}, 2},
	{"SSLv2", "\x80\x2e\x01\x00\x02", Verdict{Opaque, NotHTTP}, 1},
	{"Redis", "*1\r\n$4\r\nPING\r\n", Verdict{Opaque, NotHTTP}, 3},
	{"Redis, inline", "PING\r\n", Verdict{Opaque, NotHTTP}, 5},
	{"Redis, inline GET", "GET key\r\n", Verdict{Opaque, NotHTTP}, 8},
	{"Postgres", "\x00\x00\x00\x08\x04\xd2\x16\x2f", Verdict{Opaque, NotHTTP}, 1},
	{"Postgres, startup", "\x00\x00\x00\x29\x00\x03\x00\x00user\x00", Verdict{Opaque, NotHTTP}, 1},
	{"MySQL's answer", "\x20\x00\x00\x01\x85\xa6\xff\x01", Verdict{Opaque, NotHTTP}, 1},
	{"SMTP", "EHLO client.example\r\n", Verdict{Opaque, NotHTTP}, 20},
	{"SSH", "SSH-2.0-OpenSSH_9.7\r\n", Verdict{Opaque, NotHTTP}, 20},
	{"SSH with a comment", "SSH-2.0-x y\r\n", Verdict{Opaque, NotHTTP}, 12},
	{"memcached", "set foo 0 0 3\r\nbar\r\n", Verdict{Opaque, NotHTTP}, 9},
	{"memcached, a target like HTTP", "get HTTP/1.1 x\r\n", Verdict{Opaque, NotHTTP}, 14},
	{"MongoDB", "\x3f\x00\x00\x00\x01\x00\x00\x00", Verdict{Opaque, NotHTTP}, 1},
	{"MongoDB, a length that is a letter", "G\x00\x00\x00\x01\x00\x00\x00", Verdict{Opaque, NotHTTP}, 2},
	{"Kafka", "\x00\x00\x00\x23\x00\x12\x00\x03", Verdict{Opaque, NotHTTP}, 1},
	{"NATS", "CONNECT {\"verbose\":false}\r\n", Verdict{Opaque, NotHTTP}, 26},
	{"AMQP", "AMQP\x00\x00\x09\x01", Verdict{Opaque, NotHTTP}, 5},
	{"IRC", "NICK a\r\n", Verdict{Opaque, NotHTTP}, 7},
	{"RTSP", "OPTIONS rtsp://a/b RTSP/1.0\r\n", Verdict{Opaque, NotHTTP}, 20},
	{"SIP", "INVITE sip:a SIP/2.0\r\n", Verdict{Opaque, NotHTTP}, 14},
	{"HTTP/0.9", "GET /\r\n", Verdict{Opaque, NotHTTP}, 6},
	{"HTTP/2.0 in a line of HTTP/1", "GET / HTTP/2.0\r\n", Verdict{Opaque, NotHTTP}, 12},
	{"HTTP/3", "GET / HTTP/3\r\n", Verdict{Opaque, NotHTTP}, 12},
	{"http/1.1", "GET / http/1.1\r\n", Verdict{Opaque, NotHTTP}, 7},
	{"two spaces", "GET  / HTTP/1.1\r\n", Verdict{Opaque, NotHTTP}, 5},
	{"a preface that breaks off", "PRI * HTTP/2.0\r\n\r\nSN", Verdict{Opaque, NotHTTP}, 20},
	{"two empty lines", "\r\n\r\nGET / HTTP/1.1\r\n", Verdict{Opaque, NotHTTP}, 3},
	{"CR alone", "\rGET / HTTP/1.1\r\n", Verdict{Opaque, NotHTTP}, 2},
	{"a method without an end", strings.Repeat("A", Limit+1), Verdict{Opaque, LimitHit}, Limit},
	{"a target without an end", "GET /" + strings.Repeat("x", Limit), Verdict{Opaque, LimitHit}, Limit},
}

// inCuts feeds p in runs of the lengths that cut gives, and returns the verdict
// and how many bytes it took.
func inCuts(p []byte, cut func() int) (Verdict, int) {
	var d Detector
	for at := 0; at < len(p); {
		n := min(max(cut(), 1), len(p)-at)
		v := d.Feed(p[at : at+n])
		at += n
		if v.Protocol != Unknown {
			return v, at
		}
	}
	return Verdict{}, len(p)
}

// TestFirstBytes: each protocol is told, and by the first byte that can.
func TestFirstBytes(t *testing.T) {
	for _, row := range firsts {
		p := []byte(row.bytes)
		v, n := inCuts(p, func() int { return 1 })
		if v != row.want || n != row.after {
			t.Errorf("%s: got %v by %v after %d bytes, want %v by %v after %d", row.name, v.Protocol, v.Reason, n, row.want.Protocol, row.want.Reason, row.after)
		}
		if v, _ := inCuts(p, func() int { return len(p) }); v != row.want {
			t.Errorf("%s in one read: got %v by %v", row.name, v.Protocol, v.Reason)
		}
		if v, _ := inCuts(p[:row.after-1], func() int { return 7 }); v != (Verdict{}) {
			t.Errorf("%s: %v by %v a byte too early", row.name, v.Protocol, v.Reason)
		}
	}
}

// TestSegments: 100,000 random ways to cut them into reads.
func TestSegments(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		row := &firsts[r.IntN(len(firsts))]
		most := 1 + r.IntN(64)
		if v, _ := inCuts([]byte(row.bytes), func() int { return 1 + r.IntN(most) }); v != row.want {
			t.Fatalf("%s in runs of up to %d: got %v by %v", row.name, most, v.Protocol, v.Reason)
		}
	}
}

var (
	requestLine = regexp.MustCompile("^(?:\r\n)?[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\x00-\x20\x7f]+ HTTP/1[.]")
	lineSoFar   = regexp.MustCompile("^(?:\r?|(?:\r\n)?(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+(?: (?:[^\x00-\x20\x7f]+(?: (?:H(?:T(?:T(?:P(?:/(?:1[.]?)?)?)?)?)?)?)?)?)?)?)$")
	helloSoFar  = regexp.MustCompile("(?s)^(?:\x16(?:\x03(?:[\x00-\x04](?:.(?:.(?:\x01)?)?)?)?)?)?$")
)

// slowly is a twin of the Detector that reads its rules off: the longest prefix
// that leaves it open what is spoken, and what the next byte makes of it.
func slowly(p []byte) Verdict {
	for n := 1; n <= len(p); n++ {
		q := latin(p[:n])
		switch {
		case n == len(preface) && string(p[:n]) == preface:
			return Verdict{HTTP2, Preface}
		case n == 6 && helloSoFar.MatchString(q) && sane(p):
			return Verdict{TLS, ClientHello}
		case requestLine.MatchString(q):
			return Verdict{HTTP1, RequestLine}
		case !(n < len(preface) && strings.HasPrefix(preface, string(p[:n]))) && !(n < 6 && helloSoFar.MatchString(q) && sane(p[:n])) && !lineSoFar.MatchString(q):
			return Verdict{Opaque, NotHTTP}
		case n == Limit:
			return Verdict{Opaque, LimitHit}
		}
	}
	return Verdict{}
}

// sane reports whether a record's length, as far as it has come, may be one.
func sane(p []byte) bool {
	if len(p) < 4 {
		return true
	}
	if len(p) < 5 {
		return p[3] <= 0x40
	}
	n := int(p[3])<<8 | int(p[4])
	return n > 0 && n <= 16<<10
}

// latin makes each byte a character, for regular expressions.
func latin(p []byte) string {
	r := make([]rune, len(p))
	for i, c := range p {
		r[i] = rune(c)
	}
	return string(r)
}

// FuzzDetect compares with the slow twin, whole and byte by byte.
func FuzzDetect(f *testing.F) {
	for _, row := range firsts {
		f.Add([]byte(row.bytes), uint64(3))
	}
	f.Fuzz(func(t *testing.T, p []byte, seed uint64) {
		p = p[:min(len(p), 300)]
		want := slowly(p)
		r := rand.New(rand.NewPCG(seed, 1))
		for name, cut := range map[string]func() int{"whole": func() int { return len(p) }, "bytes": func() int { return 1 }, "runs": func() int { return 1 + r.IntN(9) }} {
			if got, _ := inCuts(p, cut); got != want {
				t.Errorf("%s: got %v by %v, want %v by %v\n%s", name, got.Protocol, got.Reason, want.Protocol, want.Reason, hex.Dump(p))
			}
		}
	})
}

// TestWords: every protocol and reason has its word, once.
func TestWords(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reasons {
		seen[r.String()] = true
	}
	for p := Unknown; p <= Opaque; p++ {
		seen[p.String()] = true
	}
	if len(seen) != int(Reasons)+int(Opaque)+1 || seen[""] {
		t.Errorf("words: %v", seen)
	}
}

// TestDetectAllocatesNothing: and it is small, for it is part of a connection.
func TestDetectAllocatesNothing(t *testing.T) {
	p := []byte("GET /a/long/enough/path HTTP/1.1\r\n")
	if n := testing.AllocsPerRun(1000, func() {
		var d Detector
		if d.Feed(p).Protocol != HTTP1 {
			t.Error("not HTTP")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDetect(b *testing.B) {
	for _, row := range []string{"GET /api/v1/items/12345?expand=owner HTTP/1.1\r\n", "\x16\x03\x01\x02\x00\x01", preface} {
		b.Run(fmt.Sprintf("%.3q", row), func(b *testing.B) {
			p := bytes.Clone([]byte(row))
			for b.Loop() {
				var d Detector
				d.Feed(p)
			}
		})
	}
}
