// Requests and echoes, every byte compared: node node_client.js HTTP-PORT RAW-PORT REQUESTS
'use strict';
const assert = require('assert');
const crypto = require('crypto');
const http = require('http');
const net = require('net');

const [port, raw, requests] = process.argv.slice(2).map(Number);
const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });

function content(length) {
  return crypto.createHash('shake256', { outputLength: length }).update(String(length)).digest();
}

function exchange(method, path, body, ownAgent) {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, method, path, agent: ownAgent };
    const request = http.request(options, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve(Buffer.concat(parts)));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function one(at) {
  const length = at % 50 === 0 ? 1000000 + at : 10 + ((at * 7919) % 3000);
  if (at % 3 === 0) {
    const body = crypto.randomBytes(length);
    const digest = await exchange('POST', '/digest', body, agent);
    assert.strictEqual(digest.toString(), crypto.createHash('sha256').update(body).digest('hex'));
  } else {
    // Every tenth over a connection of its own, closed after it.
    const got = await exchange('GET', `/content/${length}`, undefined, at % 10 === 0 ? false : agent);
    assert.ok(got.equals(content(length)), `content of ${length} bytes: ${got.length} bytes, or other ones`);
  }
}

function echo(bytes) {
  return new Promise((resolve, reject) => {
    const sent = crypto.randomBytes(bytes);
    const parts = [];
    const socket = net.connect({ host: '127.0.0.1', port: raw, allowHalfOpen: true }, () => {
      let at = 0;
      const more = () => {
        while (at < sent.length) {
          const size = 1 + ((at * 31 + 17) % 20000);
          const goesOn = socket.write(sent.subarray(at, at + size));
          at += size;
          if (!goesOn) return void socket.once('drain', more);
        }
        socket.end();
      };
      more();
    });
    socket.on('data', (part) => parts.push(part));
    socket.on('error', reject);
    socket.on('end', () => {
      const same = Buffer.concat(parts).equals(sent);
      same ? resolve() : reject(new Error('the echo is not what was sent'));
    });
  });
}

async function main() {
  for (let at = 0; at < requests; at += 100) {
    const batch = [];
    for (let index = at; index < Math.min(at + 100, requests); index++) batch.push(one(index));
    await Promise.all(batch);
  }
  await Promise.all([1, 1000, 100000, 3000000, 3000001].map(echo));
  agent.destroy();
}

main().catch((error) => {
  console.error('FAILED:', error);
  process.exit(1);
});
