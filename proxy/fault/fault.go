package fault

import "errors"

var _ error = (*Fault)(nil)

// A Fault is a classified failure.
type Fault struct {
	Kind Kind
	Side Side
	Err  error // what happened underneath; may be nil
}

// A Side says where the failure arose.
type Side uint8

const (
	Local      Side = iota // here: a filter, a limit, the configuration
	Downstream             // towards the client
	Upstream               // towards the endpoint
)

func (s Side) String() string {
	switch s {
	case Local:
		return "local"
	case Downstream:
		return "downstream"
	case Upstream:
		return "upstream"
	}
	return "unknown side"
}

// bare holds a fault without an underlying error for each kind and side. It is
// never written after the program has started.
var bare = func() (b [Kinds][Upstream + 1]Fault) {
	for k := range b {
		for s := range b[k] {
			b[k][s] = Fault{Kind: Kind(k), Side: Side(s)}
		}
	}
	return b
}()

// Wrap classifies err where the fact is known. It never returns nil; err may be
// nil, and then Wrap does not allocate.
//
// Who wraps an error that is classified already says that the failure is now
// his: a filter whose own call could not connect has failed as a filter, and
// the request must not be tried again for it.
func Wrap(k Kind, s Side, err error) *Fault {
	if k >= Kinds {
		k = Internal
	}
	if err == nil && s <= Upstream {
		return &bare[k][s]
	}
	return &Fault{Kind: k, Side: s, Err: err}
}

// Of digs the classification out of err. An error that nobody classified is
// Internal, and counts as a bug. Of(nil) is nil.
func Of(err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		if f == nil { // a nil *Fault in an error; it has no message to keep
			return &bare[Internal][Local]
		}
		return f
	}
	return &Fault{Kind: Internal, Side: Local, Err: err}
}

func (f *Fault) Error() string {
	if f.Err == nil {
		return f.Kind.String()
	}
	return f.Kind.String() + ": " + f.Err.Error()
}

func (f *Fault) Unwrap() error { return f.Err }

// Status is the status that the client gets; 0 if there is nobody to answer.
func (f *Fault) Status() int { return f.Kind.Row().Status }

// Flag is what the access log shows as RESPONSE_FLAGS.
func (f *Fault) Flag() Flag { return f.Kind.Row().Flag }

// Details is what the access log shows as RESPONSE_CODE_DETAILS.
func (f *Fault) Details() string { return f.Kind.Row().Details }
