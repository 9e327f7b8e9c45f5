package proxy

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// DefaultWarmUp is how long all that filters ask to wait for may take together.
const DefaultWarmUp = 5 * time.Second

// Ready is nil while this proxy can serve, and else says what it waits for:
// listeners, a certificate, the first document, and for a while what filters ask
// to warm up. A proxy that shuts down is not ready.
func (p *Proxy) Ready() error {
	switch {
	case p.leaving.Load() || p.draining.Load():
		return errors.New("not ready: waits for its successor: this proxy shuts down")
	case !p.listening.Load():
		return errors.New("not ready: waits for listeners")
	}
	return p.Prepared()
}

// Prepared is Ready before it listens.
func (p *Proxy) Prepared() error {
	var waits string
	switch {
	case p.Certificates != nil && p.Certificates.Current() == nil:
		waits = "a certificate"
	case p.Certificates != nil && p.Certificates.Valid() != nil:
		waits = "a certificate that is valid: " + p.Certificates.Valid().Error()
	case !p.Serves():
		waits = "the first document"
	default:
		waits = p.warmUp()
	}
	if waits == "" {
		return nil
	}
	return errors.New("not ready: waits for " + waits)
}

// warmUp says what filters are still waited for; "" if nothing. Once that was so
// it stays so: a filter that a later document brings must not take a proxy out of
// service.
func (p *Proxy) warmUp() string {
	if p.warm.Load() {
		return ""
	}
	pending := p.env.Warming.Pending()
	if len(pending) > 0 && time.Since(*p.firstApply.Load()) < p.WarmUp {
		return strings.Join(pending, ", ")
	}
	if p.warm.CompareAndSwap(false, true) && len(pending) > 0 {
		p.stats.Cold.Add(int64(len(pending)))
		if p.OnCold != nil {
			p.OnCold(fmt.Errorf("not finished within %v: %s", p.WarmUp, strings.Join(pending, ", ")))
		}
	}
	return ""
}
