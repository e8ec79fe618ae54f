// Calls with the official clients of gRPC-Web and Connect, in Node and in a page. A call is {"client", "method", "requests",
// "timeout_ms", "cancel_after", "headers"}, its outcome {"messages", "code", "message", "details", "headers", "trailers"}.
'use strict';

const { createFileRegistry, fromBinary, fromJson, toJson, toBinary } = require('@bufbuild/protobuf');
const { FileDescriptorSetSchema } = require('@bufbuild/protobuf/wkt');
const { Code, ConnectError, createClient } = require('@connectrpc/connect');
const web = require('@connectrpc/connect-web');
const grpcWeb = require('grpc-web');

// Returns the function that makes a call. `descriptors` are the bytes of a FileDescriptorSet, `more` other transports.
function makeCalls(baseUrl, descriptors, more = {}) {
  const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
  const service = registry.getService('sdk.web.Chat');
  const request = registry.getMessage('sdk.web.Said');
  const response = registry.getMessage('sdk.web.Heard');
  const retryInfo = registry.getMessage('google.rpc.RetryInfo');
  const transports = {
    'connect-web-json': web.createConnectTransport({ baseUrl, useBinaryFormat: false }),
    'connect-web-proto': web.createConnectTransport({ baseUrl, useBinaryFormat: true }),
    'connect-web-grpc-web': web.createGrpcWebTransport({ baseUrl }),
    ...more,
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

  return (call) => (call.client.startsWith('grpc-web') ? grpcWebCall(call) : connectCall(call));
}

module.exports = { makeCalls };
