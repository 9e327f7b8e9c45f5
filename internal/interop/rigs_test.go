package interop

import (
	"slices"
	"strings"
	"testing"
)

var applications = []struct {
	name  string
	start func(*testing.T) application
}{{"nginx", nginx}, {"node", node}}

var destinations = []struct {
	name  string
	start destination
	// without are exchanges that this tunnel does not carry when nothing stands
	// before it.
	without []string
}{
	// Apache passes an application's FIN on only when the client has closed
	// too, so an answer that ends with its connection does not end.
	{"httpd", httpd, []string{"http/1.0"}},
	{"envoy", envoyDestination, nil},
}

// TestApplications: the exchanges hold without anything on the way. What fails
// here is the rig's fault.
func TestApplications(t *testing.T) {
	for _, a := range applications {
		t.Run(a.name, func(t *testing.T) {
			app := a.start(t)
			carry(t, app, app.addr, nil)
		})
	}
}

// TestTunnelsAgree drives the rigs against each other, without the proxy: a
// client's tunnel, a destination's tunnel and an application, none of them
// ours. It shows that what they write is right before the proxy stands between
// them.
func TestTunnelsAgree(t *testing.T) {
	for _, d := range destinations {
		for _, a := range applications {
			t.Run(d.name+"/"+a.name, func(t *testing.T) {
				m, app := newMesh(t), a.start(t)
				far := d.start(t, m, app)
				near := envoyClient(t, m, far.addr, app.addr, m.id(far.kind))
				carry(t, app, near.addr, d.without)
				line := eventually(t, far.log, "CONNECT "+app.addr)
				for _, want := range []string{"|HTTP/2", "|200|", "TLSv1.3"} {
					if !strings.Contains(line, want) {
						t.Errorf("%s logged %q, want it to contain %q", far.kind, line, want)
					}
				}
			})
		}
	}
}

// TestTunnelsDemandCertificates shows that the rigs look at what they are
// shown: without a certificate of the mesh nobody gets in, and a client's
// tunnel talks only to the identity that it expects. So what passes through
// them later has shown its certificate.
func TestTunnelsDemandCertificates(t *testing.T) {
	for _, d := range destinations {
		t.Run(d.name, func(t *testing.T) {
			m, app := newMesh(t), node(t)
			far := d.start(t, m, app)
			good := m.clientTLS(t, "curl")
			none := good.Clone()
			none.Certificates = nil
			foreign := good.Clone()
			foreign.Certificates = newMesh(t).clientTLS(t, "curl").Certificates
			if err := handshake(t, far.addr, good); err != nil {
				t.Errorf("certificate of the mesh: got %v, want a connection", err)
			}
			if err := handshake(t, far.addr, none); err == nil {
				t.Error("no certificate: got a connection, want a refusal")
			}
			if err := handshake(t, far.addr, foreign); err == nil {
				t.Error("another mesh's certificate: got a connection, want a refusal")
			}
			near := envoyClient(t, m, far.addr, app.addr, m.id("somebody-else"))
			if got, err := curl(t, "http://"+near.addr+"/"); err == nil {
				t.Errorf("a tunnel that expects another identity: got %q, want an error", got)
			}
		})
	}
}

// TestRigControls: the rig's own helpers can fail.
func TestRigControls(t *testing.T) {
	if got, err := curl(t, "http://"+loopback(t)+"/"); err == nil {
		t.Errorf("curl to nobody: got %q, want an error", got)
	}
	for _, d := range destinations {
		for _, name := range d.without {
			if !slices.ContainsFunc(exchanges, func(x exchange) bool { return x.name == name }) {
				t.Errorf("%s goes without %q, which is no exchange", d.name, name)
			}
		}
	}
}
