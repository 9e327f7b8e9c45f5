package metrics

import (
	"bufio"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Format is a text format for scrapers.
type Format uint8

// The formats.
const (
	Prometheus  Format = iota // text format 0.0.4
	OpenMetrics               // OpenMetrics 1.0
)

// ContentType is what a response in the format says it is.
func (f Format) ContentType() string {
	if f == OpenMetrics {
		return "application/openmetrics-text; version=1.0.0; charset=utf-8"
	}
	return "text/plain; version=0.0.4; charset=utf-8"
}

// Accepted returns the format that a scraper's Accept field asks for.
func Accepted(accept string) Format {
	if strings.Contains(accept, "application/openmetrics-text") {
		return OpenMetrics
	}
	return Prometheus
}

// Expose writes every series. It holds one line in memory at a time.
func (r *Registry) Expose(w io.Writer, f Format) error {
	e := exposition{w: bufio.NewWriterSize(w, 16<<10), format: f}
	r.Each(e.series)
	if f == OpenMetrics {
		e.w.WriteString("# EOF\n")
	}
	return e.w.Flush() // which tells of errors before
}

// An exposition is one Expose.
type exposition struct {
	w      *bufio.Writer
	format Format
	family string
	labels []byte // of the series at hand, as they are written
	line   []byte
}

func (e *exposition) series(s *Series) {
	if s.Name != e.family {
		e.family = s.Name
		e.head(s)
	}
	e.labels = appendLabels(e.labels[:0], s.Labels)
	if s.Histogram == nil {
		e.sample(s.Name, "", "", s.Value())
		return
	}
	sum, count := s.Histogram.Buckets(func(upper float64, n uint64) {
		e.sample(s.Name, "_bucket", strconv.FormatFloat(upper, 'f', -1, 64), float64(n))
	})
	e.sample(s.Name, "_sum", "", sum)
	e.sample(s.Name, "_count", "", float64(count))
}

// head writes what comes before a family. OpenMetrics names a counter without
// the suffix of its samples.
func (e *exposition) head(s *Series) {
	name := s.Name
	if e.format == OpenMetrics && s.Type == CounterType {
		name = strings.TrimSuffix(name, "_total")
	}
	if s.Help != "" {
		e.w.WriteString("# HELP " + name + " ")
		e.w.Write(appendEscaped(nil, s.Help, e.format == OpenMetrics))
		e.w.WriteByte('\n')
	}
	e.w.WriteString("# TYPE " + name + " " + s.Type.String() + "\n")
}

// sample writes one line; upper is the bound of a bucket, or "".
func (e *exposition) sample(name, suffix, upper string, v float64) {
	b := append(e.line[:0], name...)
	b = append(b, suffix...)
	if len(e.labels) > 0 || upper != "" {
		b = append(b, '{')
		b = append(b, e.labels...)
		if upper != "" {
			if len(e.labels) > 0 {
				b = append(b, ',')
			}
			b = append(b, `le="`...)
			b = append(b, upper...)
			b = append(b, '"')
		}
		b = append(b, '}')
	}
	b = append(b, ' ')
	b = appendNumber(b, v)
	e.line = append(b, '\n')
	e.w.Write(e.line)
}

func appendNumber(b []byte, v float64) []byte {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func appendLabels(b []byte, list []Label) []byte {
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, list[i].Name...)
		b = append(b, `="`...)
		b = appendEscaped(b, list[i].Value, true)
		b = append(b, '"')
	}
	return b
}

// appendEscaped writes what must not stand as it is, and no byte that is no
// text. Quotes are left alone in the help of the older format.
func appendEscaped(b []byte, s string, quotes bool) []byte {
	for _, r := range s {
		switch {
		case r == '\\':
			b = append(b, `\\`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '"' && quotes:
			b = append(b, `\"`...)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}
