package route

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// calls holds candidates by what is called. Each list is in order of
// precedence.
type calls struct {
	exact    map[string][]candidate // by path: service and method
	services map[string][]candidate // by service, of any method
	rest     []candidate            // regular expressions, and of any service
}

func (x *calls) add(m *Call, c candidate) {
	switch {
	case m.Regex || m.Service == "":
		x.rest = append(x.rest, c)
	case m.Method == "":
		x.services[m.Service] = append(x.services[m.Service], c)
	default:
		path := "/" + m.Service + "/" + m.Method
		x.exact[path] = append(x.exact[path], c)
	}
}

func (x *calls) finish() {
	for _, list := range x.exact {
		slices.SortStableFunc(list, byCall)
	}
	for _, list := range x.services {
		slices.SortStableFunc(list, byCall)
	}
	slices.SortStableFunc(x.rest, byCall)
}

// byCall orders candidates of which none has an exact service that another
// lacks; a stable sort keeps the order of the table for the rest.
func byCall(a, b candidate) int {
	return cmp.Or(
		-cmp.Compare(a.call.lengths[0], b.call.lengths[0]),
		-cmp.Compare(a.call.lengths[1], b.call.lengths[1]),
		-cmp.Compare(len(a.headers), len(b.headers)),
	)
}

func (x *calls) find(r *message.Request) *candidate {
	h := head{r: r}
	path, _, _ := bytes.Cut(r.Path, question)
	if c := h.first(x.exact[string(path)]); c != nil {
		return c
	}
	service, method := called(path)
	if c := h.first(x.services[string(service)]); c != nil {
		return c
	}
	for i := range x.rest {
		if c := &x.rest[i]; c.call.fits(service, method) && h.holds(c) {
			return c
		}
	}
	return nil
}

// called takes a path apart. As in grpc-go the method is what follows the last
// slash; a path that is no call's has neither.
func called(path []byte) (service, method []byte) {
	slash := bytes.LastIndexByte(path, '/')
	if slash < 1 || path[0] != '/' {
		return nil, nil
	}
	return path[1:slash], path[slash+1:]
}

func (c *call) fits(service, method []byte) bool {
	return (c.service.value == "" || c.service.fits(service)) && (c.method.value == "" || c.method.fits(method))
}
