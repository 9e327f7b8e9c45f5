package measure

import (
	"cmp"
	"strconv"

	"github.com/sandwich-mesh/sandwich/filters"
	"github.com/sandwich-mesh/sandwich/hbone/peer"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
)

// unknown and latest are what labels say of what nobody knows.
const (
	unknown = "unknown"
	latest  = "latest"
)

// A Source is who calls, as labels say it. It is immutable.
type Source struct {
	Workload  string // its deployment, or what else it is known by
	Service   string // canonical
	Revision  string // canonical
	Namespace string
	Principal string // its SPIFFE ID
	App       string
	Version   string
	Cluster   string

	zone   zone
	secure bool // both ends have proved who they are
}

// A zone says where an end is, seen from here.
type zone uint8

const (
	zoneUnknown zone = iota
	zoneSame
	zoneOther
	zones
)

func (z zone) String() string { return [zones]string{unknown, "same", "other"}[z] }

func (m *Meter) zoneOf(name string) zone {
	switch {
	case name == "" || m.o.Zone == "":
		return zoneUnknown
	case name == m.o.Zone:
		return zoneSame
	}
	return zoneOther
}

// source says who is at the other end. w is who the document says is at the
// peer's address; it counts only if the peer has not proved to be another. What
// the peer tells of itself is believed where the document says nothing; its
// namespace is its identity's.
func (m *Meter) source(p *peer.Info, w *filters.Workload) Source {
	var s Source
	if w != nil && (p.ID.IsZero() || p.ID == w.ID) {
		s = Source{
			Workload: workloadName(w), Service: canonicalService(w), Revision: canonicalRevision(w),
			Namespace: w.Namespace, App: appOf(w), Version: w.Labels["version"], Cluster: w.Cluster,
			zone: m.zoneOf(w.Zone),
		}
	} else if p.Baggage != "" {
		b := p.Baggage.Workload()
		s = Source{
			Workload: b.Name, Service: b.Service, Revision: b.Revision,
			Namespace: b.Namespace, App: b.Service, Version: b.Revision, Cluster: b.Cluster,
			zone: m.zoneOf(b.Zone),
		}
	}
	s.Principal = p.ID.String()
	s.Namespace = cmp.Or(p.ID.Namespace(), s.Namespace, unknown)
	s.secure = !p.ID.IsZero()
	for _, f := range []*string{&s.Workload, &s.Service, &s.Principal, &s.App, &s.Version, &s.Cluster} {
		*f = cmp.Or(*f, unknown)
	}
	s.Revision = cmp.Or(s.Revision, latest)
	return s
}

func workloadName(w *filters.Workload) string {
	return cmp.Or(w.Labels["service.istio.io/workload-name"], w.Name)
}

func canonicalService(w *filters.Workload) string {
	return cmp.Or(w.Labels["service.istio.io/canonical-name"], w.Labels["app.kubernetes.io/name"], w.Labels["app"], workloadName(w))
}

func canonicalRevision(w *filters.Workload) string {
	return cmp.Or(w.Labels["service.istio.io/canonical-revision"], w.Labels["app.kubernetes.io/version"], w.Labels["version"], latest)
}

func appOf(w *filters.Workload) string { return cmp.Or(w.Labels["app"], canonicalService(w)) }

// labels lists what all metrics of the mesh have, in its order.
func (k *key) labels() []metrics.Label {
	var to filters.Service
	if k.to != nil {
		to = *k.to
	}
	at := k.at
	if at == nil {
		at = new(filters.Workload)
	}
	known := func(f func(*filters.Workload) string, or string) string {
		if k.at == nil {
			return or
		}
		return cmp.Or(f(at), or)
	}
	s, security := k.source, "none"
	if s.secure {
		security = "mutual_tls"
	}
	list := []metrics.Label{
		{Name: "reporter", Value: "waypoint"},
		{Name: "source_workload", Value: s.Workload},
		{Name: "source_canonical_service", Value: s.Service},
		{Name: "source_canonical_revision", Value: s.Revision},
		{Name: "source_workload_namespace", Value: s.Namespace},
		{Name: "source_principal", Value: s.Principal},
		{Name: "source_app", Value: s.App},
		{Name: "source_version", Value: s.Version},
		{Name: "source_cluster", Value: s.Cluster},
		{Name: "destination_workload", Value: known(workloadName, unknown)},
		{Name: "destination_workload_namespace", Value: cmp.Or(at.Namespace, unknown)},
		{Name: "destination_principal", Value: cmp.Or(at.ID.String(), unknown)},
		{Name: "destination_app", Value: known(appOf, unknown)},
		{Name: "destination_version", Value: cmp.Or(at.Labels["version"], unknown)},
		{Name: "destination_service", Value: cmp.Or(to.Host, unknown)},
		{Name: "destination_canonical_service", Value: known(canonicalService, unknown)},
		{Name: "destination_canonical_revision", Value: known(canonicalRevision, latest)},
		{Name: "destination_service_name", Value: cmp.Or(to.Name, unknown)},
		{Name: "destination_service_namespace", Value: cmp.Or(to.Namespace, unknown)},
		{Name: "destination_cluster", Value: cmp.Or(at.Cluster, unknown)},
		{Name: "request_protocol", Value: k.protocol.String()},
	}
	if k.protocol != TCP {
		grpc := ""
		if k.grpc >= 0 {
			grpc = strconv.Itoa(int(k.grpc))
		}
		list = append(list,
			metrics.Label{Name: "response_code", Value: strconv.Itoa(int(k.code))},
			metrics.Label{Name: "grpc_response_status", Value: grpc})
	}
	return append(list,
		metrics.Label{Name: "response_flags", Value: Flags(k.fault, k.exhausted)},
		metrics.Label{Name: "connection_security_policy", Value: security})
}

// overflowed replaces what varies; the class of a status has few values.
func overflowed(list []metrics.Label, code int16) []metrics.Label {
	for i := range list {
		switch l := &list[i]; l.Name {
		case "reporter", "request_protocol":
		case "response_code":
			l.Value = "0"
			if code >= 100 {
				l.Value = strconv.Itoa(int(code/100)) + "xx"
			}
		default:
			l.Value = "overflow"
		}
	}
	return list
}

// Flags returns RESPONSE_FLAGS: the fault's, and whether every attempt that the
// route grants has been made. NoFault stands for none.
func Flags(k fault.Kind, exhausted bool) string {
	if k == NoFault {
		return string(fault.None)
	}
	f := string(k.Row().Flag)
	switch {
	case !exhausted || f == string(fault.URX):
		return f
	case f == string(fault.None):
		return string(fault.URX)
	}
	return f + "," + string(fault.URX)
}

// NoFault is no kind of fault.
const NoFault = fault.Kinds
