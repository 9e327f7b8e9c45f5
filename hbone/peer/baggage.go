package peer

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// Limits of the W3C baggage recommendation, section 3.3.2: more is refused.
const (
	MaxBaggage        = 8192
	MaxBaggageMembers = 64
)

// Baggage is a baggage field whose syntax has been checked. It describes the
// workload at the other end; Workload reads it.
type Baggage string

// ParseBaggage checks a baggage field. Percent-encoding is left as it is: node
// tunnels write none and undo none.
func ParseBaggage(s string) (Baggage, error) {
	if err := checkBaggage(s); err != nil {
		return "", fmt.Errorf("baggage %.100q: %w", s, err)
	}
	return Baggage(s), nil
}

func checkBaggage(s string) error {
	if len(s) > MaxBaggage {
		return fmt.Errorf("%d bytes long, at most %d are allowed", len(s), MaxBaggage)
	}
	members := 0
	for m := range strings.SplitSeq(s, ",") {
		m = strings.Trim(m, " \t")
		if m == "" {
			continue
		}
		if members++; members > MaxBaggageMembers {
			return fmt.Errorf("more than %d members", MaxBaggageMembers)
		}
		m, properties, _ := strings.Cut(m, ";")
		key, value, ok := cutMember(m)
		switch {
		case !ok || key == "" || tokenLen(key) != len(key):
			return errors.New("want key=value")
		case !octets(value):
			return fmt.Errorf("the value of %s has a byte that is not allowed", key)
		}
		for i := range len(properties) {
			if c := properties[i]; c < ' ' && c != '\t' || c >= 0x7f {
				return fmt.Errorf("a property of %s has a byte that is not allowed", key)
			}
		}
	}
	return nil
}

func cutMember(m string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(m, "=")
	return strings.TrimRight(key, " \t"), strings.Trim(value, " \t"), ok
}

// octets reports whether s is made of baggage-octets (section 3.3.1).
func octets(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == ',' || c == ';' || c == '\\' {
			return false
		}
	}
	return true
}

// All yields keys and values in the order of the field.
func (b Baggage) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for m := range strings.SplitSeq(string(b), ",") {
			m, _, _ = strings.Cut(m, ";")
			key, value, ok := cutMember(strings.TrimLeft(m, " \t"))
			if ok && !yield(key, value) {
				return
			}
		}
	}
}

// Value returns the first value of key.
func (b Baggage) Value(key string) (string, bool) {
	for k, v := range b.All() {
		if k == key {
			return v, true
		}
	}
	return "", false
}

// A Workload is what baggage tells of one.
type Workload struct {
	Cluster   string // k8s.cluster.name
	Namespace string // k8s.namespace.name
	Kind      string // deployment, cronjob, pod or job
	Name      string // k8s.<kind>.name
	Service   string // service.name, the canonical service
	Revision  string // service.version, the canonical revision
	Region    string // cloud.region
	Zone      string // cloud.availability_zone
}

// Workload reads the keys that node tunnels write. Unknown keys are passed over.
func (b Baggage) Workload() Workload {
	var w Workload
	for k, v := range b.All() {
		if f := w.field(k); f != nil && *f == "" {
			*f = v
			if f == &w.Name {
				w.Kind = strings.TrimSuffix(strings.TrimPrefix(k, "k8s."), ".name")
			}
		}
	}
	return w
}

func (w *Workload) field(key string) *string {
	switch key {
	case "k8s.cluster.name":
		return &w.Cluster
	case "k8s.namespace.name":
		return &w.Namespace
	case "k8s.deployment.name", "k8s.cronjob.name", "k8s.pod.name", "k8s.job.name":
		return &w.Name
	case "service.name":
		return &w.Service
	case "service.version":
		return &w.Revision
	case "cloud.region":
		return &w.Region
	case "cloud.availability_zone":
		return &w.Zone
	}
	return nil
}

// AppendBaggage appends the field that describes w, in the order of node
// tunnels. What is empty, and what the field cannot carry, is left out.
func (w Workload) AppendBaggage(dst []byte) []byte {
	start := len(dst)
	add := func(key, value string) {
		if value == "" || !octets(value) {
			return
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = append(dst, key...)
		dst = append(dst, '=')
		dst = append(dst, value...)
	}
	add("k8s.cluster.name", w.Cluster)
	add("k8s.namespace.name", w.Namespace)
	if key := "k8s." + w.Kind + ".name"; w.field(key) == &w.Name {
		add(key, w.Name)
	}
	add("service.name", w.Service)
	add("service.version", w.Revision)
	add("cloud.region", w.Region)
	add("cloud.availability_zone", w.Zone)
	return dst
}
