// An HTTP server that prints each whole request it saw, as one line of JSON,
// before it answers. It ends with its standard input.
import http from 'node:http';
import fs from 'node:fs';

const b64 = (s) => Buffer.from(s, 'latin1').toString('base64');
const pairs = (raw) => {
  const list = [];
  for (let i = 0; i < raw.length; i += 2) list.push([raw[i].toLowerCase(), b64(raw[i + 1])]);
  return list;
};
const say = (v) => fs.writeSync(1, JSON.stringify(v) + '\n');

const server = http.createServer({ maxHeaderSize: 1 << 17 }, (req, res) => {
  const parts = [];
  req.on('data', (d) => parts.push(d));
  req.on('end', () => {
    if (req.complete) {
      say({ method: req.method, target: b64(req.url), fields: pairs(req.rawHeaders), trailers: pairs(req.rawTrailers), body: Buffer.concat(parts).toString('base64') });
    }
    res.end();
  });
  req.on('error', () => {});
  res.on('error', () => {});
});
server.on('clientError', (_, s) => s.destroy());
server.listen(0, '127.0.0.1', () => say({ addr: '127.0.0.1:' + server.address().port, methods: http.METHODS }));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
