package message

const (
	// NoBody and UnknownLength are the two lengths that are not counts.
	NoBody        = 0
	UnknownLength = -1
)

// A Proto is the protocol a message came in.
type Proto uint8

const (
	HTTP11 Proto = iota // the zero value: what a message made here speaks
	HTTP10
	HTTP2
)

// String returns the name for logs.
func (p Proto) String() string { return [...]string{"HTTP/1.1", "HTTP/1.0", "HTTP/2"}[p] }

// A Request is a request head. Framing fields are parsed into Length and not
// kept, so they cannot be forwarded twice; Host is Authority; Expect and Upgrade
// are fields here.
//
// Method, Scheme, Authority, Path and Upgrade are views of the arena. They may
// be read and compared at will, and changed with the Set methods.
type Request struct {
	Method    []byte
	Scheme    []byte // "http" unless the target said otherwise
	Authority []byte // empty if an HTTP/1.0 request had no Host, or Host was empty
	Path      []byte // with the query; "*" for OPTIONS of a server; empty for CONNECT
	Upgrade   []byte // what the client offers to switch to, "websocket"; empty if nothing

	Header  Header
	Trailer Header // filled by the codec at the body's end; Chunk.Trailer points at it

	Length         int64 // of the body, or UnknownLength
	Proto          Proto
	ExpectContinue bool // the client waits for 100 before it sends the body
	TE             bool // the client takes trailers, and said so in HTTP/2: "te: trailers"
	// Close asks the codec that writes the request to end the connection after
	// it. No parser sets it.
	Close bool
	// AsParsed says that nobody has had the request since a codec of ours parsed it,
	// so that its start line need not be checked again. No parser sets it.
	AsParsed bool
}

// SetMethod copies m into the request. It reports false, and does nothing, if m
// is not a method.
func (r *Request) SetMethod(m []byte) bool {
	return ValidMethod(m) && r.Header.keep(&r.Method, m)
}

// SetPath copies p, a path with or without a query, into the request. It
// reports false, and does nothing, if p has a byte that no target may have.
func (r *Request) SetPath(p []byte) bool {
	return ValidPath(p) && r.Header.keep(&r.Path, p)
}

// SetAuthority copies a, a host with or without a port, into the request. It
// reports false, and does nothing, if a is not one.
func (r *Request) SetAuthority(a []byte) bool {
	return ValidAuthority(a) && r.Header.keep(&r.Authority, a)
}

// SetUpgrade copies u into the request; empty means none.
func (r *Request) SetUpgrade(u []byte) bool {
	return ValidValue(u) && r.Header.keep(&r.Upgrade, u)
}

// keep appends p to the arena and makes view the copy.
func (h *Header) keep(view *[]byte, p []byte) bool {
	off, ok := h.place(len(p))
	if ok {
		h.arena = append(h.arena, p...)
		*view = h.run(off, uint32(len(p)))
	}
	return ok
}

// CopyFrom makes r a copy of src, trailer included.
func (r *Request) CopyFrom(src *Request) {
	header, trailer := r.Header, r.Trailer
	*r = *src
	r.Header, r.Trailer = header, trailer
	r.Header.CopyFrom(&src.Header)
	r.Trailer.CopyFrom(&src.Trailer)
	for _, v := range [...]*[]byte{&r.Method, &r.Scheme, &r.Authority, &r.Path, &r.Upgrade} {
		r.Header.keep(v, *v)
	}
}

// Reset empties the request for the next one. Views of it are dead from here on.
//
// Field by field, because an assignment of the whole copies both headers twice:
// BenchmarkReset 32 → 7 ns.
func (r *Request) Reset() {
	r.Header.Reset()
	r.Trailer.Reset()
	r.Method, r.Scheme, r.Authority, r.Path, r.Upgrade = nil, nil, nil, nil, nil
	r.Length, r.Proto, r.ExpectContinue, r.TE, r.Close, r.AsParsed = 0, 0, false, false, false, false
}

// A Response is a response head, as a Request is a request's. An informational
// one (1xx) is a Response too.
type Response struct {
	Status  int
	Reason  []byte // a view; empty means the usual words
	Upgrade []byte // of a 101: what the connection now speaks

	Header  Header
	Trailer Header

	// Length is the body's, or UnknownLength. In an answer to HEAD it is what
	// the body of a GET would have had.
	Length int64
	Proto  Proto
	Close  bool // as Request.Close
}

// SetReason copies the reason phrase into the response. It reports false, and
// does nothing, if it has a byte that no phrase may have.
func (r *Response) SetReason(p []byte) bool {
	return ValidValue(p) && r.Header.keep(&r.Reason, p)
}

// SetUpgrade copies u into the response; empty means none.
func (r *Response) SetUpgrade(u []byte) bool {
	return ValidValue(u) && r.Header.keep(&r.Upgrade, u)
}

// Bodiless reports whether a response of this status never has a body.
func (r *Response) Bodiless() bool {
	return r.Status < 200 || r.Status == 204 || r.Status == 304
}

// CopyFrom makes r a copy of src, trailer included.
func (r *Response) CopyFrom(src *Response) {
	header, trailer := r.Header, r.Trailer
	*r = *src
	r.Header, r.Trailer = header, trailer
	r.Header.CopyFrom(&src.Header)
	r.Trailer.CopyFrom(&src.Trailer)
	r.Header.keep(&r.Reason, r.Reason)
	r.Header.keep(&r.Upgrade, r.Upgrade)
}

// Reset empties the response for the next one. Views of it are dead from here on.
func (r *Response) Reset() {
	r.Header.Reset()
	r.Trailer.Reset()
	r.Status, r.Reason, r.Upgrade = 0, nil, nil
	r.Length, r.Proto, r.Close = 0, 0, false
}

// A Chunk is one run of body bytes on its way through the filters.
type Chunk struct {
	Data    []byte  // a view; a filter may edit it in place or point it elsewhere
	End     bool    // no more chunks; Data may be empty
	Trailer *Header // set with End if the body had trailers
}
