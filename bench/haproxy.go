package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// haproxyConfig does what the proxy does on an empty chain, and no more: PROXY
// header, HTTP parsed strictly, one field that clients may not send removed,
// route by path and a field, upstream connections kept and shared, no log.
const haproxyConfig = `global
    nbthread 1
    maxconn 8192
defaults
    mode http
    no log
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
frontend in
    bind ADDR accept-proxy
    http-request del-header x-forwarded-client-cert
    use_backend canary if { path_beg /api } { req.hdr(x-canary) 1 }
    use_backend items if { path_beg /api }
backend items
    http-reuse always
    server s ECHO
backend canary
    http-reuse always
    server s ECHO
`

// haproxy starts HAProxy before the answering end at echo.
func (r *Rig) haproxy(ctx context.Context, echo string) (*Process, error) {
	bin, err := lookProgram("haproxy")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(r.dir, "haproxy.cfg")
	text := strings.NewReplacer("ADDR", addr, "ECHO", echo).Replace(haproxyConfig)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("write configuration of haproxy: %w", err)
	}
	return r.Program(ctx, "haproxy", proxyCPU, addr, bin, "-db", "-f", file)
}
