// Reads a call as a line of JSON, and prints its outcome as a line (calls.js).
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const node = require('@connectrpc/connect-node');
globalThis.XMLHttpRequest = require('xhr2');
globalThis.self = globalThis;
const { makeCalls } = require('./calls.js');

const [baseUrl, descriptors] = process.argv.slice(2);
const gzip = { acceptCompression: [node.compressionGzip], sendCompression: node.compressionGzip, compressMinBytes: 1 };
const http2 = { baseUrl, httpVersion: '2' };
const call = makeCalls(baseUrl, fs.readFileSync(descriptors), {
  'connect-node-json': node.createConnectTransport({ ...http2, useBinaryFormat: false }),
  'connect-node-proto': node.createConnectTransport({ ...http2, useBinaryFormat: true }),
  'connect-node-gzip': node.createConnectTransport({ ...http2, useBinaryFormat: false, ...gzip }),
  'connect-node-http1': node.createConnectTransport({ baseUrl, httpVersion: '1.1' }),
  'connect-node-get': node.createConnectTransport({ ...http2, useHttpGet: true, useBinaryFormat: true }),
  'connect-node-get-json': node.createConnectTransport({ ...http2, useHttpGet: true, useBinaryFormat: false }),
  'connect-node-grpc-web': node.createGrpcWebTransport({ ...http2 }),
  'connect-node-grpc-web-gzip': node.createGrpcWebTransport({ ...http2, ...gzip }),
  'connect-node-grpc': node.createGrpcTransport({ baseUrl }),
});

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  console.log(JSON.stringify(await call(JSON.parse(line))));
}).on('close', () => process.exit(0));
