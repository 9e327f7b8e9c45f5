package message

// An Original is a request's head as it came, kept while filters change the
// request. It holds places in the request's arena, which only grows, and so dies
// with the request.
type Original struct {
	fields                                   []field
	method, scheme, authority, path, upgrade []byte
}

// Keep remembers r as it is now.
func (o *Original) Keep(r *Request) {
	o.fields = append(o.fields[:0], r.Header.fields...)
	o.method, o.scheme, o.authority, o.path, o.upgrade = r.Method, r.Scheme, r.Authority, r.Path, r.Upgrade
}

// CopyTo makes to a copy of the request that Keep was given, which is r by now.
// Only the head is copied.
func (o *Original) CopyTo(to, r *Request) {
	to.Reset()
	to.Length, to.Proto, to.TE = r.Length, r.Proto, r.TE
	h := &to.Header
	h.arena = append(h.arena, r.Header.arena...)
	h.fields = append(h.fields, o.fields...)
	h.has = r.Header.has // which forgets no name until a Reset
	to.Method, to.Scheme, to.Authority, to.Path, to.Upgrade = o.method, o.scheme, o.authority, o.path, o.upgrade
	for _, v := range [...]*[]byte{&to.Method, &to.Scheme, &to.Authority, &to.Path, &to.Upgrade} {
		h.keep(v, *v)
	}
}

// Reset forgets the request.
func (o *Original) Reset() {
	if cap(o.fields) > keepFields {
		o.fields = nil
	}
	*o = Original{fields: o.fields[:0]}
}
