// Calls with the official clients. Reads a call as a line of JSON, {"client", "method", "requests", "timeout_ms",
// "cancel_after", "headers"}, and prints its outcome as a line: {"messages", "code", "message", "details", "headers",
// "trailers"}.
'use strict';

const fs = require('node:fs');
const readline = require('node:readline');
const { createFileRegistry, fromBinary, fromJson, toJson, toBinary } = require('@bufbuild/protobuf');
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt');
const { Code, ConnectError, createClient } = require('@connectrpc/connect');
const node = require('@connectrpc/connect-node');
const web = require('@connectrpc/connect-web');
globalThis.XMLHttpRequest = require('xhr2');
globalThis.self = globalThis;
const grpcWeb = require('grpc-web');

const [baseUrl, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, fs.readFileSync(descriptors)));
const service = registry.getService('sdk.web.Chat');
const request = registry.getMessage('sdk.web.Said');
const response = registry.getMessage('sdk.web.Heard');
const retryInfo = registry.getMessage('google.rpc.RetryInfo');

const gzip = { acceptCompression: [node.compressionGzip], sendCompression: node.compressionGzip, compressMinBytes: 1 };
const http2 = { baseUrl, httpVersion: '2' };
const transports = {
  'connect-node-json': node.createConnectTransport({ ...http2, useBinaryFormat: false }),
  'connect-node-proto': node.createConnectTransport({ ...http2, useBinaryFormat: true }),
  'connect-node-gzip': node.createConnectTransport({ ...http2, useBinaryFormat: false, ...gzip }),
  'connect-node-http1': node.createConnectTransport({ baseUrl, httpVersion: '1.1' }),
  'connect-node-get': node.createConnectTransport({ ...http2, useHttpGet: true, useBinaryFormat: true }),
  'connect-node-get-json': node.createConnectTransport({ ...http2, useHttpGet: true, useBinaryFormat: false }),
  'connect-node-grpc-web': node.createGrpcWebTransport({ ...http2 }),
  'connect-node-grpc-web-gzip': node.createGrpcWebTransport({ ...http2, ...gzip }),
  'connect-node-grpc': node.createGrpcTransport({ baseUrl }),
  'connect-web-json': web.createConnectTransport({ baseUrl, useBinaryFormat: false }),
  'connect-web-proto': web.createConnectTransport({ baseUrl, useBinaryFormat: true }),
  'connect-web-grpc-web': web.createGrpcWebTransport({ baseUrl }),
};

async function* each(items) {
  yield* items;
}

async function connectCall(call) {
  const outcome = { messages: [], code: 0, message: '', details: [] };
  const method = service.method[call.method[0].toLowerCase() + call.method.slice(1)];
  const given = call.requests.map((json) => fromJson(request, json, { registry }));
  const abort = new AbortController();
  const options = {
    headers: call.headers,
    timeoutMs: call.timeout_ms ?? undefined,
    signal: abort.signal,
    onHeader: (headers) => (outcome.headers = Object.fromEntries(headers)),
    onTrailer: (trailers) => (outcome.trailers = Object.fromEntries(trailers)),
  };
  const client = createClient(service, transports[call.client]);
  const take = (message) => {
    outcome.messages.push(toJson(response, message, { registry }));
    if (outcome.messages.length === call.cancel_after) abort.abort();
  };
  const input = method.methodKind.endsWith('_streaming') && method.methodKind !== 'server_streaming' ? each(given) : given[0];
  try {
    const running = client[method.localName](input, options);
    if (method.methodKind.startsWith('server') || method.methodKind.startsWith('bidi')) {
      for await (const message of running) take(message);
    } else {
      take(await running);
    }
  } catch (error) {
    const { code, rawMessage, metadata } = ConnectError.from(error);
    outcome.code = code;
    outcome.message = rawMessage;
    outcome.metadata = Object.fromEntries(metadata);
    outcome.details = ConnectError.from(error).findDetails(retryInfo).map((each) => toJson(retryInfo, each));
  }
  return outcome;
}

function grpcWebCall(call) {
  const format = call.client.endsWith('-text') ? 'text' : 'binary';
  const client = new grpcWeb.GrpcWebClientBase({ format });
  const path = `${baseUrl}/sdk.web.Chat/${call.method}`;
  const kind = service.method[call.method[0].toLowerCase() + call.method.slice(1)].methodKind;
  const descriptor = new grpcWeb.MethodDescriptor(
    `/sdk.web.Chat/${call.method}`,
    kind === 'unary' ? grpcWeb.MethodType.UNARY : grpcWeb.MethodType.SERVER_STREAMING,
    Object,
    Object,
    (json) => toBinary(request, fromJson(request, json, { registry })),
    (bytes) => toJson(response, fromBinary(response, bytes), { registry }),
  );
  const metadata = { ...call.headers };
  if (call.timeout_ms) metadata.deadline = String(Date.now() + call.timeout_ms);
  return new Promise((resolve) => {
    const outcome = { messages: [], code: 0, message: '', details: [] };
    const end = (status) => {
      outcome.code = status.code;
      outcome.message = status.details ?? status.message ?? '';
      outcome.trailers = status.metadata;
    };
    if (kind === 'unary') {
      client.rpcCall(path, call.requests[0], metadata, descriptor, (error, message) => {
        if (error) end({ ...error, details: error.message });
        else outcome.messages.push(message);
        resolve(outcome);
      });
      return;
    }
    const stream = client.serverStreaming(path, call.requests[0], metadata, descriptor);
    stream.on('data', (message) => {
      outcome.messages.push(message);
      if (outcome.messages.length === call.cancel_after) {
        stream.cancel();
        resolve({ ...outcome, code: Code.Canceled });
      }
    });
    stream.on('status', end);
    stream.on('error', (error) => (end({ ...error, details: error.message }), resolve(outcome)));
    stream.on('end', () => resolve(outcome));
  });
}

readline.createInterface({ input: process.stdin }).on('line', async (line) => {
  const call = JSON.parse(line);
  const outcome = await (call.client.startsWith('grpc-web') ? grpcWebCall(call) : connectCall(call));
  console.log(JSON.stringify(outcome));
}).on('close', () => process.exit(0));
