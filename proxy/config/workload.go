package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// Workload is who may be at the other end of a connection.
type Workload struct {
	Meta
	// Its IP address; short for addresses with one item.
	Address netip.Addr `json:"address,omitzero"`
	// Its IP addresses.
	Addresses []netip.Addr `json:"addresses,omitempty" rule:"maxItems=16"`
	// Its service account: with namespace and trust domain the identity that its tunnel must show.
	ServiceAccount string `json:"serviceAccount,omitempty" rule:"format=name" default:"default"`
	// Its trust domain.
	TrustDomain string `json:"trustDomain,omitempty" rule:"format=trustDomain" default:"cluster.local"`
	// Its labels, for metrics and matches.
	Labels map[string]string `json:"labels,omitempty" rule:"maxItems=256"`
	// Where it runs.
	Locality Locality `json:"locality,omitzero"`
	// The node it runs on.
	Node string `json:"node,omitempty" rule:"format=text,max=253"`
	// Its share of requests against its neighbours; 0 takes none.
	Weight *int32 `json:"weight,omitempty" rule:"min=0,max=1000000" default:"1" aka:"capacity"`
	// How it is reached: HBONE, or TCP, which is plain text and is counted.
	Protocol Protocol `json:"protocol,omitempty" rule:"enum=HBONE|TCP" default:"HBONE" aka:"tunnelProtocol"`
	// Whether it may be picked.
	Health Health `json:"health,omitempty" rule:"enum=HEALTHY|UNHEALTHY" default:"HEALTHY" aka:"status"`
}

// Locality is where a workload runs, widest first.
type Locality struct {
	// The region.
	Region string `json:"region,omitempty" rule:"format=text,max=253"`
	// The zone in the region.
	Zone string `json:"zone,omitempty" rule:"format=text,max=253"`
	// The part of the zone.
	Subzone string `json:"subzone,omitempty" rule:"format=text,max=253"`
}

// Health says whether a workload may be picked.
type Health string

// Healths.
const (
	Healthy   Health = "HEALTHY"
	Unhealthy Health = "UNHEALTHY"
)

// Identity returns the workload's SPIFFE ID.
func (w *Workload) Identity() string {
	return "spiffe://" + w.TrustDomain + "/ns/" + w.Namespace + "/sa/" + w.ServiceAccount
}

// complete moves the short form of addresses into the long one.
func (w *Workload) complete(*Config) {
	if w.Address.IsValid() && !slices.Contains(w.Addresses, w.Address) {
		w.Addresses = append([]netip.Addr{w.Address}, w.Addresses...)
	}
	w.Address = netip.Addr{}
}

func (w *Workload) targets() []Target { return nil }

func (w *Workload) check(r *report) {
	if len(w.Addresses) == 0 {
		r.add(CodeMissing, Pos{}, "address", "the workload has no address", "write address: IP")
	}
}

func (w *Workload) refs(*report, *index) {}

func (w *Workload) lint(r *report, x *index) {
	for _, a := range w.Addresses {
		if first := x.byAddress[a]; first != w {
			r.add(CodeSharedAddress, Pos{}, "addresses", fmt.Sprintf("%s is that of Workload %s as well: labels and locality of a caller there are taken from the first", a, first.Key()), "give each workload an address of its own, unless they share a host's")
		}
	}
}
