package records

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// lookEvery is how often somebody who follows is told of what is new.
const lookEvery = 100 * time.Millisecond

// usual is how many records are told if nobody says.
const usual = 20

// A query is what is asked for.
type query struct {
	id, service string
	failed      bool
	limit       int
	follow      bool
	write       func(*Record) ([]byte, error)
}

func parse(q url.Values) (query, error) {
	out := query{id: q.Get("id"), service: q.Get("service"), failed: q.Get("failed") != "", limit: usual, follow: q.Get("f") != ""}
	if s := q.Get("n"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			return out, fmt.Errorf("n=%q is no number of records: write n=%d", s, usual)
		}
		out.limit = n
	}
	format := q.Get("format")
	if format == "" && out.id != "" {
		format = "text"
	}
	switch format {
	case "json":
		out.write = func(r *Record) ([]byte, error) {
			b, err := json.Marshal(r)
			return append(b, '\n'), err
		}
	case "text":
		out.write = func(r *Record) ([]byte, error) { return []byte(r.Text()), nil }
	case "", "line":
		out.write = func(r *Record) ([]byte, error) { return []byte(r.Line() + "\n"), nil }
	default:
		return out, fmt.Errorf("format=%q is not understood: write line, text or json", format)
	}
	return out, nil
}

func (q *query) wants(r *Record) bool {
	return (q.id == "" || r.RequestID == q.id) && strings.Contains(r.Service, q.service) &&
		(!q.failed || r.Ours || r.Status >= 500 || r.Fault != "")
}

// Query emits the latest records that are asked for, the oldest of them first,
// and goes on with new ones if f is given:
//
//	n=20 id=REQUEST-ID service=PART failed=1 f=1 format=line|text|json
func (r *Ring) Query(ctx context.Context, values url.Values, emit func([]byte) error) error {
	q, err := parse(values)
	if err != nil {
		return err
	}
	seen := uint64(0)
	for first := true; ; first = false {
		var list []*Record
		for _, one := range r.Since(seen) {
			seen = one.N
			if q.wants(one) {
				list = append(list, one)
			}
		}
		if first && len(list) > q.limit {
			list = list[len(list)-q.limit:]
		}
		var out []byte
		for _, one := range list {
			b, err := q.write(one)
			if err != nil {
				return err
			}
			out = append(out, b...)
		}
		if len(out) > 0 || first {
			if err := emit(out); err != nil {
				return err
			}
		}
		if !q.follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}
