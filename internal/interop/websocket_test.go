package interop

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sandwich-mesh/sandwich/internal/needs"
)

// webSocketServer sends every message back as it was, and its sum of them all
// when it is asked for "sum".
const webSocketServer = `
const {WebSocketServer} = require('ws');
const [host, port] = process.argv[2].split(':');
const server = new WebSocketServer({host, port: Number(port), perMessageDeflate: process.argv[3] === 'deflate'});
server.on('connection', ws => {
  const sum = require('crypto').createHash('sha256');
  ws.on('message', (data, binary) => {
    if (!binary && String(data) === 'sum') return ws.send(sum.digest('hex'));
    sum.update((binary ? 'b' : 't') + data.length + ':').update(data);
    ws.send(data, {binary});
  });
  ws.on('close', (code, reason) => console.log('closed', code, String(reason)));
});
`

// webSocketClient sends random frames, of which one to four are a message, with
// pings between them, and wants each message back in its turn.
const webSocketClient = `
const WebSocket = require('ws');
const [url, seed, count] = process.argv.slice(2);
const hash = () => require('crypto').createHash('sha256');
let state = Number(seed) >>> 0 || 1;
const random = n => { state ^= state << 13; state ^= state >>> 17; state ^= state << 5; return (state >>> 0) % n; };
const sizes = [0, 1, 125, 126, 1000, 4096, 65535, 65536];
const size = () => random(20) ? random(600) : sizes[random(sizes.length)];
const sent = hash(), got = hash();
const result = {frames: 0, messages: 0, back: 0, pings: 0, pongs: 0, extensions: ''};
const ws = new WebSocket(url);

function message() {
  const binary = random(2) === 0, parts = [];
  for (let n = 1 + random(4); n > 0; n--) {
    const part = Buffer.alloc(size());
    for (let i = 0; i < part.length; i++) part[i] = binary ? random(256) : 32 + random(95);
    parts.push(part);
  }
  const whole = Buffer.concat(parts);
  sent.update((binary ? 'b' : 't') + whole.length + ':').update(whole);
  parts.forEach((part, i) => ws.send(part, {binary, fin: i === parts.length - 1}));
  result.frames += parts.length;
  result.messages++;
  if (random(50) === 0) { ws.ping(String(result.pings)); result.pings++; }
}
function more() {
  while (result.frames < Number(count) && result.messages - result.back < 32) message();
  if (result.back === result.messages) ws.send('sum');
}
ws.on('open', () => { result.extensions = ws.extensions; more(); });
ws.on('pong', () => result.pongs++);
ws.on('message', (data, binary) => {
  if (result.back === result.messages) {
    result.server = String(data);
    return ws.close(4000, 'enough');
  }
  got.update((binary ? 'b' : 't') + data.length + ':').update(data);
  result.back++;
  more();
});
ws.on('error', e => { result.error = String(e); });
ws.on('close', (code, reason) => {
  Object.assign(result, {code, reason: String(reason), sent: sent.digest('hex'), got: got.digest('hex')});
  console.log(JSON.stringify(result));
});
`

// frames is how many the client sends.
const frames = 10_000

// webSocket is what came of a client's run.
type webSocket struct {
	Frames, Messages, Back, Pings, Pongs, Code int
	Extensions, Sent, Got, Server, Reason      string
	Error                                      string
}

// ws starts the WebSocket server of npm's ws.
func ws(t *testing.T, mode string) (application, *process) {
	t.Helper()
	path := needs.Program(t, "node", "nodejs")
	t.Setenv("NODE_PATH", needs.NodeModule(t, "ws"))
	dir, addr := folder(t), loopback(t)
	script := writeFile(t, filepath.Join(dir, "server.js"), webSocketServer)
	return application{"ws", addr}, start(t, dir, path, []string{script, addr, mode}, addr)
}

// chat runs the client of npm's ws against addr and compares sums: what was sent,
// what the server had, what came back.
func chat(t *testing.T, addr string, server *process, mode string) {
	t.Helper()
	path := needs.Program(t, "node", "nodejs")
	script := writeFile(t, filepath.Join(folder(t), "client.js"), webSocketClient)
	seed := time.Now().UnixNano() % 1e9
	cmd := exec.Command(path, script, "ws://"+addr+"/chat", strconv.FormatInt(seed, 10), strconv.Itoa(frames))
	cmd.WaitDelay = 5 * time.Second
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(runTimeout/2, func() { cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Wait()
	var got webSocket
	if bad := json.Unmarshal(out.Bytes(), &got); err != nil || bad != nil {
		t.Fatalf("seed %d: %v, %v: %s%s", seed, err, bad, &out, &complaint)
	}
	if got.Sent != got.Got || got.Sent != got.Server || got.Frames < frames || got.Back != got.Messages || got.Pongs != got.Pings || got.Pings == 0 {
		t.Errorf("seed %d: got %+v, want equal sums of at least %d frames, and a pong for each ping", seed, got, frames)
	}
	if got.Code != 4000 || got.Reason != "enough" || got.Error != "" {
		t.Errorf("seed %d: closed with %d %q %s, want 4000 enough", seed, got.Code, got.Reason, got.Error)
	}
	if (got.Extensions == "permessage-deflate") != (mode == "deflate") {
		t.Errorf("extensions %q in mode %s", got.Extensions, mode)
	}
	server.until(t, "the end of the connection", func() bool { return bytes.Contains([]byte(server.log.String()), []byte("closed 4000 enough")) })
}

var modes = []string{"plain", "deflate"}

// TestWebSocketsAgree: ws with itself, and nothing between.
func TestWebSocketsAgree(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			app, server := ws(t, mode)
			chat(t, app.addr, server, mode)
		})
	}
}

// TestWebSocketHBONE: Envoy's tunnel to us, the upgrade at layer 7, our tunnel to
// Envoy's.
func TestWebSocketHBONE(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			app, server := ws(t, mode)
			m := newMesh(t)
			far := envoyDestination(t, m, app)
			w := newWaypoint(t, m, &far)
			w.serve(t, virtual, app, far.kind)
			near := envoyClient(t, m, w.mesh, virtual, m.id("waypoint"))
			chat(t, near.addr, server, mode)
		})
	}
}

// TestWebSocketPROXY: HAProxy hands the connection over behind a PROXY header.
func TestWebSocketPROXY(t *testing.T) {
	app, server := ws(t, "plain")
	w := newWaypoint(t, nil, nil)
	front := haproxyWriter(t, w.header, "")
	w.serve(t, front, app, "app")
	chat(t, front, server, "plain")
}
