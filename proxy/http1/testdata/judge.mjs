// Sends each byte stream to Node's HTTP server and prints what it saw. Input: a
// JSON list of base64 strings. Output: the methods the parser knows, and for each
// stream a list of messages and, if the parser gave up, the error's code.
import http from 'node:http';
import net from 'node:net';

const streams = JSON.parse(await new Response(process.stdin).text());
const b64 = (s) => Buffer.from(s, 'latin1').toString('base64');
const seen = new Map(); // by the client's port

function pairs(raw) {
  const list = [];
  for (let i = 0; i < raw.length; i += 2) list.push([raw[i].toLowerCase(), b64(raw[i + 1])]);
  return list;
}

function note(req) {
  const m = { method: req.method, target: b64(req.url), fields: pairs(req.rawHeaders), trailers: [], body: '', complete: false };
  seen.get(req.socket.remotePort).messages.push(m);
  return m;
}

const server = http.createServer({ maxHeaderSize: 1 << 17, keepAliveTimeout: 0 }, (req, res) => {
  const m = note(req);
  const parts = [];
  req.on('data', (d) => parts.push(d));
  req.on('end', () => {
    m.body = Buffer.concat(parts).toString('base64');
    m.trailers = pairs(req.rawTrailers);
    m.complete = req.complete;
    res.end();
  });
  req.on('error', () => {});
  res.on('error', () => {});
});
server.on('connect', (req, socket) => { note(req).complete = true; socket.destroy(); });
server.on('connection', (s) => { seen.set(s.remotePort, { messages: [], error: '' }); s.on('error', () => {}); });
server.on('clientError', (err, s) => {
  const at = seen.get(s.remotePort);
  if (at && !at.error) at.error = err.code || String(err);
  s.destroy();
});

const run = (stream) => new Promise((resolve) => {
  const c = net.connect(server.address().port, '127.0.0.1', () => { port = c.localPort; c.end(Buffer.from(stream, 'base64')); });
  let port = 0;
  c.resume();
  c.on('error', () => {});
  c.on('close', () => setImmediate(() => resolve(seen.get(port))));
});

server.listen(0, '127.0.0.1', async () => {
  const out = [];
  for (let i = 0; i < streams.length; i += 32) out.push(...await Promise.all(streams.slice(i, i + 32).map(run)));
  process.stdout.write(JSON.stringify({ methods: http.METHODS, views: out }), () => process.exit(0));
});
