package http1

import "testing"

// refusals are requests that are wrong in one place, each with what it would be
// without the fault. The control shows that nothing else is refused.
var refusals = []struct {
	name    string
	bad     string
	control string
	status  int
}{
	{"bare LF after the start line", "GET / HTTP/1.1\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"bare LF after a field", "GET / HTTP/1.1\r\nHost: h\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"bare LF at the end", "GET / HTTP/1.1\r\nHost: h\r\n\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b c\r\n\r\n", 400},
	{"bare CR at the end of a value", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n", 400},
	{"bare CR before a request", "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"two empty lines before a request", "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"folded value", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b c\r\n\r\n", 400},
	{"space before the first field", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"space before the colon", "GET / HTTP/1.1\r\nHost : h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"no colon", "GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA:\r\n\r\n", 400},
	{"empty name", "GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n", 400},
	{"name with @", "GET / HTTP/1.1\r\nHost: h\r\nA@: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n", 400},
	{"name with a high byte", "GET / HTTP/1.1\r\nHost: h\r\nA\xe9: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: \xe9\r\n\r\n", 400},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: h\r\nA: b\x00\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n", 400},
	{"DEL in a value", "GET / HTTP/1.1\r\nHost: h\r\nA: b\x7f\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nA: b\t\r\n\r\n", 400},

	{"two Content-Lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"differing Content-Lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"Content-Length list", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"signed Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"negative Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"octal Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"hexadecimal Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"empty Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"huge Content-Length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000000\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400},
	{"both framings", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding other than chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ChunkeD\r\n\r\n0\r\n\r\n", 400},
	{"coding before chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
	{"coding behind chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"empty coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"coding with a parameter", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"quoted coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST / HTTP/1.0\r\nHost: h\r\n\r\n", 400},

	{"no Host", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.0\r\n\r\n", 400},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"Host with user information", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"Host with a path", "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"Host list", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"Host with an empty port", "GET / HTTP/1.1\r\nHost: h:\r\n\r\n", "GET / HTTP/1.1\r\nHost: h:80\r\n\r\n", 400},
	{"Host with a port out of range", "GET / HTTP/1.1\r\nHost: h:65536\r\n\r\n", "GET / HTTP/1.1\r\nHost: h:65535\r\n\r\n", 400},
	{"Host with a zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", "GET / HTTP/1.1\r\nHost: [fe80::1]:80\r\n\r\n", 400},

	{"user information in the target", "GET http://u:p@h/ HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"other scheme", "GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", "GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"no authority in the target", "GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n", "GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"relative target", "GET x HTTP/1.1\r\nHost: h\r\n\r\n", "GET /x HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"authority-form without CONNECT", "GET h:80 HTTP/1.1\r\nHost: h\r\n\r\n", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"CONNECT with a path", "CONNECT / HTTP/1.1\r\nHost: h\r\n\r\n", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"CONNECT without a port", "CONNECT h HTTP/1.1\r\nHost: h\r\n\r\n", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"CONNECT of an address without a port", "CONNECT [::1] HTTP/1.1\r\nHost: h\r\n\r\n", "CONNECT [::1]:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"CONNECT with a body", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"asterisk without OPTIONS", "GET * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"fragment", "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"high byte in the target", "GET /\xce\xb4 HTTP/1.1\r\nHost: h\r\n\r\n", "GET /%ce%b4 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"tab in the target", "GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n", "GET /ab HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", "GET /ab HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"no target", "GET  HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},

	{"space before the method", " GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"two spaces in the start line", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"tab in the start line", "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"space behind the version", "GET / HTTP/1.1 \r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"no version", "GET /\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"method with a bad byte", "G(T / HTTP/1.1\r\nHost: h\r\n\r\n", "G!T / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"method in lower case", "get / HTTP/1.1\r\nHost: h\r\n\r\n", "got / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"other protocol", "GET / ICE/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"protocol in lower case", "GET / http/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"version 1.10", "GET / HTTP/1.10\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400},
	{"version 1.2", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 505},
	{"version 2.0", "PRI * HTTP/2.0\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 505},
	{"version 0.9", "GET / HTTP/0.9\r\nHost: h\r\n\r\n", "GET / HTTP/1.0\r\nHost: h\r\n\r\n", 505},
	{"unknown expectation", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n", "POST / HTTP/1.0\r\nHost: h\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n", 417},

	{"chunk size with a sign", chunkedPost("+1\r\na\r\n0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"chunk size with 0x", chunkedPost("0x1\r\na\r\n0\r\n\r\n"), chunkedPost("01\r\na\r\n0\r\n\r\n"), 400},
	{"chunk size with a space before", chunkedPost(" 1\r\na\r\n0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"chunk size with a space behind", chunkedPost("1 \r\na\r\n0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"no chunk size", chunkedPost("\r\na\r\n0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"chunk size of 16 digits", chunkedPost("0000000000000001\r\na\r\n0\r\n\r\n"), chunkedPost("000000000000001\r\na\r\n0\r\n\r\n"), 400},
	{"bare LF behind a chunk size", chunkedPost("1\na\r\n0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"chunk longer than its size", chunkedPost("1\r\nab\r\n0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"bare LF behind a chunk", chunkedPost("1\r\na\n0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"bare CR behind a chunk", chunkedPost("1\r\na\r0\r\n\r\n"), chunkedPost("1\r\na\r\n0\r\n\r\n"), 400},
	{"empty extension", chunkedPost("1;\r\na\r\n0\r\n\r\n"), chunkedPost("1;x\r\na\r\n0\r\n\r\n"), 400},
	{"extension with a space", chunkedPost("1; x=y\r\na\r\n0\r\n\r\n"), chunkedPost("1;x=y\r\na\r\n0\r\n\r\n"), 400},
	{"extension with a bare LF", chunkedPost("1;x\na\r\n0\r\n\r\n"), chunkedPost("1;x\r\na\r\n0\r\n\r\n"), 400},
	{"extension with a bare CR", chunkedPost("1;x\ry\r\na\r\n0\r\n\r\n"), chunkedPost("1;xy\r\na\r\n0\r\n\r\n"), 400},
	{"extension with an open quote", chunkedPost("1;x=\"y\r\na\r\n0\r\n\r\n"), chunkedPost("1;x=\"y\\\"\"\r\na\r\n0\r\n\r\n"), 400},
	{"extension behind a quote", chunkedPost("1;x=\"y\"z\r\na\r\n0\r\n\r\n"), chunkedPost("1;x=\"y\";z\r\na\r\n0\r\n\r\n"), 400},
	{"trailer with a bare LF", chunkedPost("0\r\nA: b\n\r\n"), chunkedPost("0\r\nA: b\r\n\r\n"), 400},
	{"folded trailer", chunkedPost("0\r\nA: b\r\n c\r\n\r\n"), chunkedPost("0\r\nA: b\r\n\r\n"), 400},
}

func chunkedPost(body string) string {
	return "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body
}

func TestRefusals(t *testing.T) {
	for _, row := range refusals {
		t.Run(row.name, func(t *testing.T) {
			bad := newTestServer(nil).feed(row.bad)
			if bad.err == nil {
				t.Errorf("%q was accepted: %q", row.bad, bad.events)
			} else if bad.err.Status != row.status {
				t.Errorf("%q: got %d %s, want %d", row.bad, bad.err.Status, bad.err.Reason, row.status)
			}
			if bad.KeepAlive() {
				t.Error("connection would be kept after the error")
			}
			control := newTestServer(nil).feed(row.control)
			if control.err != nil || len(control.events) == 0 {
				t.Errorf("control %q: got %q, error %v", row.control, control.events, control.err)
			}
		})
	}
}
