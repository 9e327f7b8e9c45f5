package proxy

import (
	"iter"
	"sync/atomic"

	"github.com/sandwich-mesh/sandwich/hbone"
	"github.com/sandwich-mesh/sandwich/internal/buf"
	"github.com/sandwich-mesh/sandwich/internal/h2"
	"github.com/sandwich-mesh/sandwich/internal/memory"
	"github.com/sandwich-mesh/sandwich/internal/metrics"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/sniff"
)

var _ metrics.Collector = (*Proxy)(nil)

// A figure is a metric that this proxy counts for itself.
type figure struct {
	name, help string
	of         func(*Proxy) int64
}

func load(f func(*Proxy) *atomic.Int64) func(*Proxy) int64 {
	return func(p *Proxy) int64 { return f(p).Load() }
}

// counters and gauges are never written.
var counters = []figure{
	{"waypoint_requests_total", "Requests that are over.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Requests })},
	{"waypoint_retries_total", "Attempts after the first.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Retries })},
	{"waypoint_replay_overflow_total", "Requests whose body found no room for another attempt.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.ReplayOver })},
	{"waypoint_panics_total", "Panics that cost one request or connection: bugs.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Panics })},
	{"waypoint_impossible_events_total", "Events that a request's state forbids: bugs.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Impossible })},
	{"waypoint_connections_accepted_total", "Clients' transport connections.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Accepted })},
	{"waypoint_connections_over_cap_total", "Connections closed because there were too many.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().OverCap })},
	{"waypoint_connections_over_memory_total", "Connections refused because memory is short.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().OverMemory })},
	{"waypoint_connections_sent_away_total", "Connections asked to go elsewhere because memory is short and they held most.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().SentAway })},
	{"waypoint_connections_cut_for_memory_total", "Connections cut because memory is short and they held most.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().CutForMemory })},
	{"waypoint_floods_total", "Clients' connections, of the mesh and inside its tunnels, ended for a flood.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Floods })},
	{"waypoint_floods_forgotten_total", "Addresses from which floods came that were forgotten because there were too many.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Forgotten })},
	{"waypoint_connections_held_off_total", "Connections that waited for their TLS handshake because floods came from their address.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().HeldOff })},
	{"waypoint_connections_over_holdoff_total", "Connections refused because they would have waited too long for it.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().OverHoldoff })},
	{"waypoint_accept_errors_total", "Errors of accept itself, such as no descriptors.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().AcceptErrors })},
	{"waypoint_tunnels_total", "Tunnels that clients opened.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Tunnels })},
	{"waypoint_tunnels_refused_total", "Tunnels that were refused.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Refused })},
	{"waypoint_tunnels_malformed_total", "CONNECT requests that were none.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().BadConnects })},
	{"waypoint_tunnel_metadata_errors_total", "Fields forwarded, baggage or traceparent that did not parse.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().BadMetadata })},
	{"waypoint_proxy_untrusted_total", "Connections with a PROXY header from where none may come.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Untrusted })},
	{"waypoint_proxy_malformed_total", "PROXY headers malformed, cut short or late.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().BadHeaders })},
	{"waypoint_distrusted_total", "Clients' mesh connections that ended with their peer's certificate.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Distrusted })},
	{"waypoint_reader_parks_total", "Times a reader paused because its bytes found no room.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Wire.Parks })},
	{"waypoint_socket_full_total", "Times a socket took no more.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Wire.Drains })},
	{"waypoint_opaque_total", "Connections of opaque bytes that reached an endpoint.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Opaque })},
	{"waypoint_cut_total", "Opaque and upgraded connections that the end of a drain cut.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Cut })},
	{"waypoint_reviewed_total", "Connections and requests under way that a new document has judged again.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Reviewed })},
	{"waypoint_revoked_total", "Of those, the ones that ended because the new document refuses them.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Revoked })},
	{"waypoint_upgrades_total", "Requests that became a connection of another protocol.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Upgraded })},
	{"waypoint_pool_dials_total", "Connections dialled towards endpoints and their node tunnels.", load(func(p *Proxy) *atomic.Int64 { return &p.pool.Stats().Dials })},
	{"waypoint_pool_dial_errors_total", "Dials and handshakes that failed.", load(func(p *Proxy) *atomic.Int64 { return &p.pool.Stats().DialErrors })},
	{"waypoint_pool_tunnels_total", "Connections to endpoints asked for.", load(func(p *Proxy) *atomic.Int64 { return &p.pool.Stats().Tunnels })},
	{"waypoint_pool_plaintext_total", "Connections to endpoints in plain text.", load(func(p *Proxy) *atomic.Int64 { return &p.pool.Stats().Plain })},
	{"waypoint_pool_full_total", "Tunnels refused because all mesh connections were full.", load(func(p *Proxy) *atomic.Int64 { return &p.pool.Stats().Full })},
	{"waypoint_pool_distrusted_total", "Mesh connections to node tunnels that ended with their peer's certificate.", load(func(p *Proxy) *atomic.Int64 { return &p.pool.Stats().Distrusted })},
	{"waypoint_certificate_swaps_total", "Certificates and roots made current.", func(p *Proxy) int64 {
		if p.Certificates == nil {
			return 0
		}
		return p.Certificates.Stats().Swaps.Load()
	}},
	{"waypoint_certificate_problems_total", "Certificates refused, and sources that could not be read.", func(p *Proxy) int64 {
		if p.Certificates == nil {
			return 0
		}
		return p.Certificates.Stats().Problems.Load()
	}},
	{"waypoint_warm_ups_unfinished_total", "What filters asked to wait for and this proxy became ready without.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Cold })},
	{"waypoint_documents_total", "Documents applied.", load(func(p *Proxy) *atomic.Int64 { return &p.stats.Documents })},
}

var gauges = []figure{
	{"waypoint_connections", "Clients' transport connections now.", load(func(p *Proxy) *atomic.Int64 { return &p.ServerStats().Conns })},
	{"waypoint_inner_connections", "Clients' inner connections now.", func(p *Proxy) int64 {
		p.mu.Lock()
		defer p.mu.Unlock()
		return int64(len(p.live))
	}},
	{"waypoint_pool_connections", "Mesh connections to node tunnels now.", load(func(p *Proxy) *atomic.Int64 { return &p.pool.Stats().Conns })},
	{"waypoint_workers_queued", "Filters that wait for a goroutine to work on.", func(p *Proxy) int64 { return p.workers.queued.Load() }},
	{"waypoint_replay_bytes", "Request bytes kept for another attempt.", func(p *Proxy) int64 { return p.replay.Load() }},
	{"waypoint_memory_limit_bytes", "Memory that this process may have; 0 for no limit.", func(p *Proxy) int64 { return int64(p.MemoryLimit) }},
	{"waypoint_memory_use_bytes", "Memory in use behind a collection, and the kernel's for sockets, as the ladder last saw it.", func(p *Proxy) int64 { return int64(p.pressure.use.Load()) }},
	{"waypoint_memory_step", "How short memory is: 0 calm, 1 tight, 2 crowded, 3 full, 4 cut.", func(p *Proxy) int64 { return int64(p.pressure.step.Load()) }},
	{"waypoint_buffers_lent", "Buffers in use.", func(*Proxy) int64 { return buf.Outstanding() }},
	{"waypoint_warming_up", "What filters ask to wait for, and is not finished.", func(p *Proxy) int64 { return int64(len(p.env.Warming.Pending())) }},
	{"waypoint_draining", "1 while this proxy shuts down.", func(p *Proxy) int64 {
		if p.draining.Load() {
			return 1
		}
		return 0
	}},
	{"waypoint_services", "Services and pods that the document describes.", func(p *Proxy) int64 { return int64(len(p.Snapshot().Services())) }},
	{"config_objects", "Objects of the document.", func(p *Proxy) int64 { return int64(p.Snapshot().Settled().Total) }},
	{"config_objects_active", "Objects of the document in force as they are written.", func(p *Proxy) int64 { return int64(p.Snapshot().Settled().Active) }},
}

// Collect hands out what the engine and its tunnels count.
func (p *Proxy) Collect(f func(*metrics.Series)) {
	for _, c := range counters {
		f(&metrics.Series{Name: c.name, Help: c.help, Type: metrics.CounterType, Number: float64(c.of(p))})
	}
	for _, g := range gauges {
		f(&metrics.Series{Name: g.name, Help: g.help, Type: metrics.GaugeType, Number: float64(g.of(p))})
	}
	for k := range fault.Kinds {
		f(&metrics.Series{
			Name: "waypoint_faults_total", Type: metrics.CounterType, Number: float64(p.stats.Faults[k].Load()),
			Help:   "Requests and tunnels that failed, by how.",
			Labels: []metrics.Label{{Name: "details", Value: k.Row().Details}, {Name: "response_flags", Value: string(k.Row().Flag)}},
		})
	}
	for r := range sniff.Reasons {
		if r > sniff.Declared {
			f(&metrics.Series{
				Name: "waypoint_detected_total", Type: metrics.CounterType, Number: float64(p.stats.Settled[r].Load()),
				Help:   "Connections to ports of which nothing is declared, by what settled what they speak.",
				Labels: []metrics.Label{{Name: "reason", Value: r.String()}},
			})
		}
	}
	for s := memory.Tight; s < memory.Steps; s++ {
		f(&metrics.Series{
			Name: "waypoint_memory_steps_total", Type: metrics.CounterType, Number: float64(p.pressure.reached[s].Load()),
			Help:   "Times that memory was so short that a step of the ladder was reached.",
			Labels: []metrics.Label{{Name: "step", Value: s.String()}},
		})
	}
	for of, c := range p.http2Limits {
		for l := range h2.LimitCount {
			f(&metrics.Series{
				Name: "waypoint_http2_limits_total", Type: metrics.CounterType, Number: float64(c[l].Load()),
				Help:   "Times that a peer met a limit of HTTP/2, on connections of the mesh and inside their tunnels.",
				Labels: []metrics.Label{{Name: "connection", Value: of}, {Name: "limit", Value: l.String()}},
			})
		}
	}
	handshakes(f, "waypoint_handshake_errors_total", "Clients' TLS handshakes that failed, by why.", p.ServerStats().TLS.All())
	handshakes(f, "waypoint_pool_handshake_errors_total", "TLS handshakes with node tunnels that failed, by why.", p.pool.Stats().TLS.All())
	s := p.Snapshot().Settled()
	for _, id := range s.Stale {
		f(&metrics.Series{
			Name: "config_stale_objects", Help: "Objects that run on their last good version.", Type: metrics.GaugeType, Number: 1,
			Labels: []metrics.Label{{Name: "kind", Value: id.Kind}, {Name: "name", Value: id.Namespace + "/" + id.Name}},
		})
	}
	for _, id := range s.Closed {
		f(&metrics.Series{
			Name: "config_closed_objects", Help: "Objects that have no good version and fail closed.", Type: metrics.GaugeType, Number: 1,
			Labels: []metrics.Label{{Name: "kind", Value: id.Kind}, {Name: "name", Value: id.Namespace + "/" + id.Name}},
		})
	}
}

// http2Limits yields the counters of each sort of connection.
func (p *Proxy) http2Limits(yield func(of string, c *h2.Counters) bool) {
	_ = yield("client_mesh", &p.ServerStats().HTTP2) && yield("client_inner", &p.stats.HTTP2) &&
		yield("endpoint_mesh", &p.pool.Stats().HTTP2) && yield("endpoint_inner", &p.pool.Stats().Inner)
}

func handshakes(f func(*metrics.Series), name, help string, all iter.Seq2[hbone.TLSReason, int64]) {
	for r, n := range all {
		f(&metrics.Series{
			Name: name, Help: help, Type: metrics.CounterType, Number: float64(n),
			Labels: []metrics.Label{{Name: "reason", Value: r.String()}},
		})
	}
}
