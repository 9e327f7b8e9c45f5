package proxy

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"

	"github.com/sandwich-mesh/sandwich/internal/turn"
	"github.com/sandwich-mesh/sandwich/proxy/fault"
	"github.com/sandwich-mesh/sandwich/proxy/message"
)

// Over HTTP/1 a WebSocket's opening has a key and its proof (RFC 6455, section
// 4.2.2), over HTTP/2 it has neither (RFC 8441, section 5). Where the two sides
// differ, we are client to the one or server to the other.

var websocket = []byte("websocket")

func offersWebSocket(r *message.Request) bool { return message.EqualFold(r.Upgrade, string(websocket)) }

// askWebSocket makes an offer of HTTP/2 one that an endpoint of HTTP/1 takes.
func (x *exchange) askWebSocket() {
	if x.req.Proto != message.HTTP2 || x.asHTTP2() || !offersWebSocket(&x.req) {
		return
	}
	var key [16]byte
	rand.Read(key[:])
	x.req.Header.Set("sec-websocket-key", base64.StdEncoding.EncodeToString(key[:]))
}

// switched goes on with a head that answers an offer to switch protocols. It
// reports false if the exchange has failed.
func (x *exchange) switched(t *turn.Turn) bool {
	switch {
	case x.resp.Status == 101:
		return x.takeWebSocket(t)
	case x.resp.Status < 300 && x.req.Proto == message.HTTP2: // to the client it would say that it has
		x.fail(t, fault.Wrap(fault.NotImplemented, fault.Upstream, errNoSwitch))
		return false
	}
	return true
}

var errNoSwitch = errors.New("the endpoint did not switch to the protocol offered")

var errProof = errors.New("sec-websocket-accept is not the answer to the key")

// takeWebSocket checks the proof of an endpoint of HTTP/1, or gives the one that a
// client of HTTP/1 wants. It reports false if the exchange has failed.
func (x *exchange) takeWebSocket(t *turn.Turn) bool {
	fromOne, toOne := !x.asHTTP2(), x.req.Proto != message.HTTP2
	if fromOne == toOne || !offersWebSocket(&x.req) {
		return true
	}
	key, _ := x.req.Header.ValueOf(message.SecWebSocketKey)
	sum := sha1.Sum(append(append([]byte(nil), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	proof := base64.StdEncoding.EncodeToString(sum[:])
	if toOne {
		x.resp.Header.Set("sec-websocket-accept", proof)
		return true
	}
	if got, _ := x.resp.Header.Value("sec-websocket-accept"); string(got) != proof {
		x.fail(t, fault.Wrap(fault.UpstreamProtocol, fault.Upstream, errProof))
		return false
	}
	x.resp.Header.Del("sec-websocket-accept")
	return true
}
