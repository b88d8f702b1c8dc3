// A web server and an echo server: node node_server.js HTTP-PORT RAW-PORT WORKERS
//   GET /content/LENGTH: bytes that follow from the length; POST /digest: the SHA-256 of the body
// With WORKERS the first process accepts connections and hands them to its children over a Unix socket.
'use strict';
const cluster = require('cluster');
const crypto = require('crypto');
const http = require('http');
const net = require('net');

const [port, raw, workers] = process.argv.slice(2).map(Number);

if (cluster.isPrimary && workers > 0) {
  cluster.schedulingPolicy = cluster.SCHED_RR;
  for (let at = 0; at < workers; at++) cluster.fork();
  process.on('SIGTERM', () => {
    cluster.on('exit', () => Object.keys(cluster.workers).length > 0 || process.exit(0));
    for (const id in cluster.workers) cluster.workers[id].process.kill();
  });
} else {
  http.createServer(answer).listen(port, '127.0.0.1');
  net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)).listen(raw, '127.0.0.1');
}

function answer(request, response) {
  const [, kind, length] = request.url.split('/');
  if (kind === 'content') {
    const body = crypto.createHash('shake256', { outputLength: Number(length) }).update(length).digest();
    // In three writes, so that some are chunked and some wait for the socket to drain.
    const third = Math.ceil(body.length / 3);
    response.write(body.subarray(0, third));
    response.write(body.subarray(third, 2 * third));
    response.end(body.subarray(2 * third));
    return;
  }
  const hash = crypto.createHash('sha256');
  request.on('data', (part) => hash.update(part));
  request.on('end', () => response.end(hash.digest('hex')));
}
