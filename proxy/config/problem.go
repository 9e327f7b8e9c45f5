package config

import (
	"fmt"
	"strings"
)

// A Problem is one thing that is wrong, or probably not meant, in a document.
type Problem struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"` // from 1
	Column   int      `json:"column,omitempty"`
	// Object is whom it concerns; its Kind is Waypoint for the document itself.
	Object ID `json:"object"`
	// Origin is the object that the user wrote, if another one.
	Origin *Origin `json:"origin,omitempty"`
	// Field is the path in the object, as in rules[0].matches[1].path.
	Field string `json:"field,omitempty"`
	// Message says what is wrong.
	Message string `json:"message"`
	// Fix says what to write instead.
	Fix string `json:"fix,omitempty"`
}

// Severity tells problems from hints.
type Severity uint8

// Severities.
const (
	Error Severity = iota
	Warning
)

// String returns the severity's word.
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// MarshalText writes the severity's word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the severity's word.
func (s *Severity) UnmarshalText(text []byte) error {
	switch string(text) {
	case "error":
		*s = Error
	case "warning":
		*s = Warning
	default:
		return fmt.Errorf("%q is not a severity", text)
	}
	return nil
}

// Where returns file:line:column, as much of it as is known.
func (p *Problem) Where() string {
	out := p.File
	if p.Line > 0 {
		out = fmt.Sprintf("%s:%d:%d", out, p.Line, p.Column)
	}
	return strings.TrimPrefix(out, ":")
}

// String returns the problem in one line.
func (p *Problem) String() string {
	var b strings.Builder
	if where := p.Where(); where != "" {
		b.WriteString(where + ": ")
	}
	fmt.Fprintf(&b, "%s %s: %s: ", p.Severity, p.Code, p.Subject())
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	if p.Fix != "" {
		b.WriteString("; " + p.Fix)
	}
	return b.String()
}

// Subject names the object that the user wrote: the origin where there is one.
func (p *Problem) Subject() string {
	if p.Origin != nil {
		return p.Origin.String()
	}
	return p.Object.String()
}

// Fatal reports whether the document is to be rejected for the problems.
func Fatal(problems []Problem) bool {
	for i := range problems {
		if problems[i].Code.Effect() == Rejected {
			return true
		}
	}
	return false
}

const (
	// maxPerObject and maxPerDocument bound how many problems are listed: the
	// first few are read, and a file of another program would yield thousands.
	maxPerObject   = 20
	maxPerDocument = 1000
)

// report collects problems, of one object at a time.
type report struct {
	list   []Problem
	more   int // problems that were not listed
	object ID
	origin *Origin
	file   string
	at     Pos

	found  int  // of the current object
	failed bool // the current object is not usable
}

// begin turns to another object.
func (r *report) begin(id ID, origin *Origin, file string, at Pos) {
	r.object, r.origin, r.file, r.at = id, origin, file, at
	r.found, r.failed = 0, false
}

// turnTo begins with an object that has been decoded.
func (r *report) turnTo(kind string, m *Meta) {
	r.begin(ID{kind, m.Namespace, m.Name}, m.Origin, m.File, m.At)
}

// add lists a problem of the current object. A zero at is where it begins.
func (r *report) add(code Code, at Pos, field, message, fix string) {
	info := code.info()
	if info.effect >= ObjectFails {
		r.failed = true
	}
	if r.full() && info.effect != Rejected {
		r.found++
		r.more++
		return
	}
	r.found++
	if at == (Pos{}) {
		at = r.at
	}
	r.list = append(r.list, Problem{
		Code: code, Severity: info.severity,
		File: r.file, Line: int(at.Line), Column: int(at.Column),
		Object: r.object, Origin: r.origin, Field: field,
		Message: message, Fix: fix,
	})
}

// full reports whether problems of the current object are only counted by now.
func (r *report) full() bool { return r.found >= maxPerObject || len(r.list) >= maxPerDocument }

// problems returns what was found. A last one counts those not listed.
func (r *report) problems() []Problem {
	if r.more > 0 {
		last := r.list[len(r.list)-1]
		r.list = append(r.list, Problem{
			Code: CodeTooMany, Severity: Error, File: last.File, Line: last.Line, Column: last.Column,
			Object:  ID{Kind: DocumentKind},
			Message: fmt.Sprintf("%d more problems are not listed", r.more),
			Fix:     "mend those above first",
		})
		r.more = 0
	}
	return r.list
}
