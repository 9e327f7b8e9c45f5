package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/devca"
)

// A house is where waypoints follow each other: the same ports, files, state and
// endpoints.
type house struct {
	r                   *Rig
	dir                 string
	hbone, proxy, ready string
	tunnelPort          string
	ca                  *devca.CA
	endpoints           [3]*Process
	now                 *Process // the waypoint
}

// newHouse has endpoints and no waypoint yet.
func (r *Rig) newHouse() (*house, error) {
	dir, err := os.MkdirTemp(r.dir, "house-")
	if err != nil {
		return nil, err
	}
	h := &house{r: r, dir: dir, ca: r.ca}
	for _, to := range []*string{&h.hbone, &h.proxy, &h.ready, &h.tunnelPort} {
		if *to, err = r.freeAddr(); err != nil {
			return nil, err
		}
	}
	if _, h.tunnelPort, err = net.SplitHostPort(h.tunnelPort); err != nil {
		return nil, err
	}
	if err := h.certify(); err != nil {
		return nil, err
	}
	for i := range h.endpoints {
		if err := h.revive(i); err != nil {
			return nil, err
		}
	}
	return h, h.document(0)
}

func (h *house) file(name string) string { return filepath.Join(h.dir, name) }

// replace puts a file in place of another in one step.
func (h *house) replace(name string, data []byte) error {
	temp := h.file(name + ".new")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, h.file(name))
}

// certify gives the waypoint a new certificate and a new key, as a volume does: in
// one step.
func (h *house) certify() error {
	leaf, err := h.ca.Issue([]string{"spiffe://cluster.local/ns/demo/sa/waypoint"})
	if err != nil {
		return err
	}
	data, err := os.MkdirTemp(h.dir, "..certs-")
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{"chain.pem": leaf.Chain, "key.pem": leaf.Key} {
		if err := os.WriteFile(filepath.Join(data, name), b, 0o600); err != nil {
			return err
		}
	}
	temp := h.file("..data_tmp")
	if err := os.Symlink(data, temp); err != nil {
		return err
	}
	return os.Rename(temp, h.file("..data"))
}

// document puts a version of the document in force: its answers tell their version,
// and its routes and weights are others each time.
func (h *house) document(version int64) error { return h.replace("waypoint.yaml", h.text(version)) }

func (h *house) text(version int64) []byte {
	service, _, _ := net.SplitHostPort(vip)
	path := fmt.Sprintf("/api/v%d", version)
	text := fmt.Sprintf(`apiVersion: sandwich-mesh.io/v1alpha1
kind: Waypoint
metadata: {name: lives, namespace: demo}
services:
- name: svc
  addresses: [%[1]s]
  ports: [{port: 80, targetPort: 9080, appProtocol: http}]
  endpoints: [{workload: svc-1}, {workload: svc-2}, {workload: svc-3}]
- {name: some, ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [{workload: svc-1}, {workload: svc-2}, {workload: svc-3}]}
workloads:
- {name: svc-1, address: 127.0.0.1, serviceAccount: echo}
- {name: svc-2, address: 127.0.0.2, serviceAccount: echo}
- {name: svc-3, address: 127.0.0.3, serviceAccount: echo}
- {name: curl, address: 10.1.0.5, serviceAccount: curl}
httpRoutes:
- name: svc
  parentRefs: [{kind: Service, name: svc, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: %[2]s}}]
    backendRefs: [{name: svc, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /api}}]
    retry: {attempts: 4, codes: [503], backoff: 10ms}
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-version, value: "%[3]d"}]}}]
    backendRefs: [{name: svc, port: 80, weight: %[4]d}, {name: some, port: 80, weight: %[5]d}]
`, service, path, version, 1+version%7, 1+version%5)
	return []byte(text)
}

// revive starts an endpoint, again where it was.
func (h *house) revive(i int) error {
	at := net.JoinHostPort(fmt.Sprintf("127.0.0.%d", i+1), h.tunnelPort)
	p, err := h.r.Part("tunnel", anyCPU, PartOptions{Certs: h.r.certs["echo"], Listen: at})
	h.endpoints[i] = p
	return err
}

// move starts a waypoint and returns when it is ready.
func (h *house) move(ctx context.Context, flags ...string) (*Process, error) {
	if h.r.Waypoint == "" {
		return nil, errNoWaypoint
	}
	argv := append([]string{h.r.Waypoint, "serve", "--config", h.file("waypoint.yaml"), "--state-dir", h.file("state"),
		"--hbone-listen", h.hbone, "--proxy-listen", h.proxy, "--ready-listen", h.ready, "--admin-listen", "", "--metrics-listen", "",
		"--cert", h.file("..data/chain.pem"), "--key", h.file("..data/key.pem"), "--roots", h.r.certs["curl"].Roots,
		"--tunnel-port", h.tunnelPort}, flags...)
	p, out, err := h.r.start("waypoint", anyCPU, argv)
	if err != nil {
		return nil, err
	}
	go p.drainLog(out)
	return p, h.untilReady(ctx, p)
}

// untilReady asks the readiness port until it says yes.
func (h *house) untilReady(ctx context.Context, p *Process) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	for {
		res, err := client.Get("http://" + h.ready + "/healthz/ready")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := p.alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", p.Name, ctx.Err(), p.log)
		case <-time.After(time.Millisecond):
		}
	}
}

// manyServices is a document with so many services, each with a route and its
// share of endpoints, and as many workloads as those.
func manyServices(services, endpoints int) []byte {
	var s, r, w strings.Builder
	each := max(endpoints/services, 1)
	for i := range services {
		var members []string
		for k := range each {
			name := "w-" + strconv.Itoa(i*each+k)
			members = append(members, "{workload: "+name+"}")
			n := i*each + k
			fmt.Fprintf(&w, "- {name: %s, address: 10.%d.%d.%d, serviceAccount: echo}\n", name, 1+n>>16, n>>8&255, n&255)
		}
		fmt.Fprintf(&s, "- {name: s-%d, addresses: [10.200.%d.%d], ports: [{port: 80, targetPort: 9080, appProtocol: http}], endpoints: [%s]}\n", i, i>>8, i&255, strings.Join(members, ", "))
		fmt.Fprintf(&r, "- name: s-%[1]d\n  parentRefs: [{kind: Service, name: s-%[1]d, port: 80}]\n  rules:\n  - matches: [{path: {type: PathPrefix, value: /a}, headers: [{name: x-canary, value: \"1\"}]}]\n    backendRefs: [{name: s-%[1]d, port: 80}]\n  - backendRefs: [{name: s-%[1]d, port: 80}]\n", i)
	}
	return []byte("apiVersion: sandwich-mesh.io/v1alpha1\nkind: Waypoint\nmetadata: {name: many, namespace: demo}\nservices:\n" + s.String() + "workloads:\n" + w.String() + "httpRoutes:\n" + r.String())
}
