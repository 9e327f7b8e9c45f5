package load

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Condition is a statement about a result, such as "p99>5ms or errors>0.1%":
//
//	or         = and { "or" and }
//	and        = comparison { "and" comparison }
//	comparison = "(" or ")" | figure operator value
//	operator   = "<" | "<=" | ">" | ">=" | "=" | "==" | "!="
//	figure     = [ kind ":" ] name
//
// A comma is another way to write "or". Names and their units are in figures, and
// in what `waypoint-load run --help` prints. A kind is the name of a request of
// the mix, in quotation marks if it is no plain word.
type Condition struct {
	text string
	root node
}

// A node of a condition.
type node interface {
	// holds reports whether it is so, and adds to said what comparisons saw.
	holds(r *Result, said *[]string) (bool, error)
}

type junction struct {
	or   bool
	list []node
}

type comparison struct {
	kind, name string
	percentile float64 // of names that have one
	unit       unit
	op         string
	value      float64
	text       string
}

// A unit is what a figure is counted in.
type unit uint8

const (
	duration unit = iota // seconds
	number1              // requests
	perSecond
	memory // bytes
	cores
	numberOrShare // requests, or their share of all
)

var unitWords = [...]string{
	duration: "a duration, such as 5ms", number1: "a number, such as 10", perSecond: "a rate, such as 1000/s",
	memory: "an amount of memory, such as 64MiB", cores: "a number of cores, such as 0.5", numberOrShare: "a number, such as 10, or a share, such as 0.1%",
}

// figures are what conditions may speak of, besides percentiles.
var figures = map[string]unit{
	"min": duration, "mean": duration, "stddev": duration, "max": duration,
	"errors": numberOrShare, "waited": numberOrShare, "sent": number1, "done": number1, "lost": number1,
	"rate": perSecond, "offered": perSecond, "cpu": cores, "cpu-per-request": duration, "memory": memory,
}

// maxCondition bounds a condition's text, and so how deep it nests.
const maxCondition = 1000

// ParseCondition reads a condition.
func ParseCondition(text string) (*Condition, error) {
	if len(text) > maxCondition {
		return nil, fmt.Errorf("condition has %d bytes, the limit is %d", len(text), maxCondition)
	}
	p := &parser{text: text}
	root, err := p.or()
	if err == nil && p.peek() != "" {
		err = p.errorf("unexpected %q: write and, or or a comma between comparisons", p.peek())
	}
	if err != nil {
		return nil, err
	}
	return &Condition{text, root}, nil
}

func (c *Condition) String() string { return c.text }

// Holds reports whether the condition is so, and what the figures were that it
// speaks of.
func (c *Condition) Holds(r *Result) (holds bool, said string, err error) {
	var seen []string
	holds, err = c.root.holds(r, &seen)
	return holds, strings.Join(seen, ", "), err
}

// Check says whether a run of the spec will have the figures that the condition
// speaks of.
func (c *Condition) Check(s Spec) error {
	s = s.withDefaults()
	r := &Result{Spec: s, Sent: 1}
	if len(s.Mix) > 1 {
		for _, k := range s.Mix {
			r.Kinds = append(r.Kinds, KindResult{Name: k.Name})
		}
	}
	if s.Target.PID != 0 {
		r.Target = &Usage{}
	}
	var seen []string
	_, err := c.root.holds(r, &seen)
	return err
}

func (j *junction) holds(r *Result, said *[]string) (bool, error) {
	all := !j.or
	for _, n := range j.list {
		is, err := n.holds(r, said) // all are looked at, so that all figures are told
		if err != nil {
			return false, err
		}
		if j.or {
			all = all || is
		} else {
			all = all && is
		}
	}
	return all, nil
}

func (c *comparison) holds(r *Result, said *[]string) (bool, error) {
	v, err := c.figure(r)
	if err != nil {
		return false, err
	}
	*said = append(*said, c.text+" is "+format(v, c.unit))
	switch c.op {
	case "<":
		return v < c.value, nil
	case "<=":
		return v <= c.value, nil
	case ">":
		return v > c.value, nil
	case ">=":
		return v >= c.value, nil
	case "!=":
		return v != c.value, nil
	}
	return v == c.value, nil
}

// shareUnit is a numberOrShare that was compared with a share.
const shareUnit = unit(100)

func format(v float64, u unit) string {
	switch u {
	case duration:
		return time.Duration(v * float64(time.Second)).String()
	case perSecond:
		return strconv.FormatFloat(v, 'f', 1, 64) + "/s"
	case memory:
		return strconv.FormatFloat(v/(1<<20), 'f', 1, 64) + "MiB"
	case shareUnit:
		return strconv.FormatFloat(100*v, 'g', 4, 64) + "%"
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// figure returns what a result has for the comparison.
func (c *comparison) figure(r *Result) (float64, error) {
	latency, done, failed, sent := &r.Latency, r.Done, r.Failed, r.Sent
	if c.kind != "" {
		k := r.kind(c.kind)
		if k == nil {
			return 0, fmt.Errorf("%q: the mix has no request called %q", c.text, c.kind)
		}
		latency, done, failed, sent = &k.Latency, k.Done, k.Failed, k.Done+k.Failed
	}
	name := c.name
	if rest, ok := strings.CutPrefix(name, "service."); ok {
		latency, name = &r.Service, rest
	} else if rest, ok := strings.CutPrefix(name, "lag."); ok {
		latency, name = &r.Lag, rest
	}
	count := func(n int64) (float64, error) {
		if c.unit == shareUnit {
			return (&Result{Sent: sent}).share(n), nil
		}
		return float64(n), nil
	}
	switch name {
	case "p":
		return latency.At(c.percentile).Seconds(), nil
	case "min":
		return latency.Min.Seconds(), nil
	case "mean":
		return latency.Mean.Seconds(), nil
	case "stddev":
		return latency.StdDev.Seconds(), nil
	case "max":
		return latency.Max.Seconds(), nil
	case "errors":
		return count(failed)
	case "done":
		return count(done)
	case "sent":
		return count(sent)
	case "waited":
		return count(r.Waited)
	case "lost":
		return count(r.Lost)
	case "rate":
		return r.Rate, nil
	case "offered":
		return r.Offered, nil
	}
	return c.usage(r, name)
}

func (c *comparison) usage(r *Result, name string) (float64, error) {
	if r.Target == nil {
		return 0, fmt.Errorf("%q is about the target's process: write --pid", c.text)
	}
	switch name {
	case "cpu":
		return r.Target.Cores, nil
	case "memory":
		return float64(r.Target.Memory), nil
	}
	return r.Target.PerRequest.Seconds(), nil
}

func (r *Result) kind(name string) *KindResult {
	for i := range r.Kinds {
		if r.Kinds[i].Name == name {
			return &r.Kinds[i]
		}
	}
	return nil
}

// A parser reads a condition from left to right.
type parser struct {
	text string
	at   int
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("condition %q, at %d: "+format, append([]any{p.text, p.at + 1}, args...)...)
}

func (p *parser) blanks() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t') {
		p.at++
	}
}

const operatorBytes = "<>=!"

// peek returns the next word without taking it.
func (p *parser) peek() string {
	p.blanks()
	rest := p.text[p.at:]
	if rest == "" {
		return ""
	}
	if strings.IndexByte("(),:", rest[0]) >= 0 {
		return rest[:1]
	}
	if rest[0] == '"' {
		if i := strings.IndexByte(rest[1:], '"'); i >= 0 {
			return rest[:i+2]
		}
		return rest
	}
	in := func(set string) int {
		n := 0
		for n < len(rest) && strings.IndexByte(set, rest[n]) >= 0 {
			n++
		}
		return n
	}
	if n := in(operatorBytes); n > 0 {
		return rest[:n]
	}
	if n := strings.IndexAny(rest, " \t(),:\""+operatorBytes); n >= 0 {
		return rest[:n]
	}
	return rest
}

func (p *parser) take() string {
	w := p.peek()
	p.at += len(w)
	return w
}

func (p *parser) or() (node, error)  { return p.junction(true, p.and, "or", ",") }
func (p *parser) and() (node, error) { return p.junction(false, p.comparison, "and", "and") }

func (p *parser) junction(or bool, part func() (node, error), words ...string) (node, error) {
	j := &junction{or: or}
	for {
		n, err := part()
		if err != nil {
			return nil, err
		}
		j.list = append(j.list, n)
		if w := p.peek(); w != words[0] && w != words[1] {
			return j, nil
		}
		p.take()
	}
}

func (p *parser) comparison() (node, error) {
	if p.peek() == "(" {
		p.take()
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		if p.peek() != ")" {
			return nil, p.errorf("want ), not %q", p.peek())
		}
		p.take()
		return n, nil
	}
	p.blanks()
	c := &comparison{}
	from := p.at
	name := p.take()
	if p.peek() == ":" {
		p.take()
		if c.kind = strings.Trim(name, `"`); c.kind == "" {
			return nil, p.errorf("no request has an empty name")
		}
		name = p.take()
	}
	if err := c.named(name); err != nil {
		return nil, p.errorf("%w", err)
	}
	c.text = p.text[from:p.at]
	switch c.op = p.peek(); c.op {
	case "<", "<=", ">", ">=", "=", "==", "!=":
		p.take()
	default:
		return nil, p.errorf("want <, <=, >, >=, = or != behind %s, not %q", name, c.op)
	}
	value := p.peek()
	if err := c.against(value); err != nil {
		return nil, p.errorf("%w", err)
	}
	p.take()
	return c, nil
}

// named sets what the comparison is about.
func (c *comparison) named(name string) error {
	whole := name
	rest, service := strings.CutPrefix(name, "service.")
	lag := false
	if !service {
		rest, lag = strings.CutPrefix(name, "lag.")
	}
	if c.kind != "" && (service || lag) {
		return fmt.Errorf("%s is not kept for each kind of request", name)
	}
	prefix := name[:len(name)-len(rest)]
	if digits, ok := strings.CutPrefix(rest, "p"); ok && digits != "" {
		v, err := strconv.ParseFloat(digits, 64)
		if err == nil && plainNumber(digits) && v > 0 && v <= 100 {
			c.name, c.percentile, c.unit = prefix+"p", v, duration
			return nil
		}
	}
	u, known := figures[rest]
	switch {
	case !known, (service || lag) && u != duration, (service || lag) && rest == "cpu-per-request":
		return fmt.Errorf("%q is no figure: write p99 (or another percentile, service.p99, lag.p99), min, mean, stddev, max, errors, waited, sent, done, lost, rate, offered, cpu, cpu-per-request or memory", whole)
	case c.kind != "" && u != duration && rest != "errors" && rest != "done" && rest != "sent", c.kind != "" && rest == "cpu-per-request":
		return fmt.Errorf("%s is not kept for each kind of request", rest)
	}
	c.name, c.unit = whole, u
	return nil
}

// plainNumber reports whether s is digits with at most one point.
func plainNumber(s string) bool {
	return strings.Trim(s, "0123456789") == "" || strings.Count(s, ".") == 1 && strings.Trim(s, "0123456789.") == "" && s != "."
}

// suffixes are the units that values are written in, by what they count.
var suffixes = map[unit]map[string]float64{
	duration:      {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60},
	number1:       {"": 1},
	perSecond:     {"/s": 1, "": 1},
	memory:        {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30},
	cores:         {"": 1},
	numberOrShare: {"": 1, "%": 0.01},
}

// against sets what the figure is compared with.
func (c *comparison) against(value string) error {
	n := 0
	for n < len(value) && (value[n] >= '0' && value[n] <= '9' || value[n] == '.') {
		n++
	}
	v, err := strconv.ParseFloat(value[:n], 64)
	factor, ok := suffixes[c.unit][value[n:]]
	if value == "0" && c.unit == duration {
		factor, ok = 1, true
	}
	if err != nil || !plainNumber(value[:n]) || !ok || math.IsInf(v, 0) {
		return fmt.Errorf("%s is compared with %s, not with %q", c.text, unitWords[c.unit], value)
	}
	if c.unit == numberOrShare && value[n:] == "%" {
		c.unit = shareUnit
	}
	c.value = v * factor
	return nil
}
