// The interop cases with @grpc/grpc-js. Reads the name of a case from each line of its input, runs it, and prints one
// line of JSON: {"case": name, "error": null or the error}.
'use strict';

const assert = require('node:assert/strict');
const readline = require('node:readline');
const { setTimeout: pause } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [address, proto] = process.argv.slice(2);
const { TestService } = grpc.loadPackageDefinition(
  loader.loadSync(proto, { keepCase: true, defaults: true }),
).grpc.testing;

const REQUEST_SIZE = 271828;
const RESPONSE_SIZE = 314159;
const UPLOADS = [27182, 8, 1828, 45904];
const DOWNLOADS = [31415, 9, 2653, 58979];
const INITIAL_KEY = 'x-grpc-test-echo-initial';
const TRAILING_KEY = 'x-grpc-test-echo-trailing-bin';
const STATUS_MESSAGE = 'test status message';
const SPECIAL_MESSAGE = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
const PATIENCE_MS = 60_000;
// grpc-js reads gRPC's write flags where a stream of Node takes an encoding.
const NO_COMPRESS = 2;
const GZIP = { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip };

const payload = (size) => ({ body: Buffer.alloc(size) });
const large = (fields = {}) => ({ response_size: RESPONSE_SIZE, payload: payload(REQUEST_SIZE), ...fields });
const connect = (options = {}) => new TestService(address, grpc.credentials.createInsecure(), options);
const patience = () => ({ deadline: Date.now() + PATIENCE_MS });

const client = connect();

// A call with one response, with its outcome: success or error.
function unary(start) {
  return new Promise((resolve) => {
    const outcome = {};
    const call = start((error, response) => {
      outcome.response = response;
      outcome.code = error ? error.code : grpc.status.OK;
      outcome.details = error ? error.details : '';
    });
    call.on('metadata', (metadata) => (outcome.initial = metadata));
    call.on('status', (status) => resolve(Object.assign(outcome, { trailing: status.metadata })));
    outcome.call = call;
  });
}

// A call with a stream of responses, in the same form. The reader sees each response as it comes.
function stream(call, onResponse = () => {}) {
  return new Promise((resolve) => {
    const outcome = { sizes: [] };
    call.on('data', (response) => {
      outcome.sizes.push(response.payload.body.length);
      onResponse(outcome.sizes.length);
    });
    call.on('metadata', (metadata) => (outcome.initial = metadata));
    call.on('error', () => {}); // the status reports it too
    call.on('status', ({ code, details, metadata }) => resolve({ ...outcome, code, details, trailing: metadata }));
  });
}

const call = (request, options = {}, by = client) =>
  unary((done) => by.UnaryCall(request, new grpc.Metadata(), { ...patience(), ...options }, done));

function upload(messages, options = {}) {
  return unary((done) => {
    const sending = (options.by ?? client).StreamingInputCall(new grpc.Metadata(), patience(), done);
    for (const { flags, ...message } of messages) {
      flags === undefined ? sending.write(message) : sending.write(message, flags);
    }
    sending.end();
    return sending;
  });
}

function checkLarge({ code, details, response }) {
  assert.equal(code, grpc.status.OK, details);
  assert.ok(response.payload.body.equals(Buffer.alloc(RESPONSE_SIZE)));
}

function checkStatus(outcome, code, details) {
  assert.deepEqual({ code: outcome.code, details: outcome.details }, { code, details });
}

function checkEchoed({ code, initial, trailing }) {
  assert.equal(code, grpc.status.OK);
  assert.deepEqual(initial.get(INITIAL_KEY), ['test_initial_metadata_value']);
  assert.deepEqual(trailing.get(TRAILING_KEY), [Buffer.from('ababab', 'hex')]);
}

const downloads = (...sizes) => ({ response_parameters: sizes.map((size) => ({ size })) });
const pingPong = (i) => ({ ...downloads(DOWNLOADS[i]), payload: payload(UPLOADS[i]) });

async function checkUnimplemented(path) {
  const empty = () => Buffer.alloc(0);
  const outcome = await unary((done) => client.makeUnaryRequest(path, empty, empty, {}, patience(), done));
  assert.equal(outcome.code, grpc.status.UNIMPLEMENTED);
}

const cases = {
  async empty_unary() {
    const outcome = await unary((done) => client.EmptyCall({}, patience(), done));
    assert.equal(outcome.code, grpc.status.OK);
    assert.deepEqual({ ...outcome.response }, {});
  },

  async large_unary() {
    checkLarge(await call(large()));
  },

  async client_compressed_unary() {
    const expected = large({ expect_compressed: { value: true } });
    assert.equal((await call(expected)).code, grpc.status.INVALID_ARGUMENT);
    const compressing = connect(GZIP);
    checkLarge(await call(expected, {}, compressing));
    compressing.close();
    checkLarge(await call(large({ expect_compressed: { value: false } })));
  },

  async server_compressed_unary() {
    checkLarge(await call(large({ response_compressed: { value: true } })));
    checkLarge(await call(large({ response_compressed: { value: false } })));
  },

  async client_streaming() {
    const { code, response } = await upload(UPLOADS.map((size) => ({ payload: payload(size) })));
    assert.equal(code, grpc.status.OK);
    assert.equal(response.aggregated_payload_size, 74922);
  },

  async client_compressed_streaming() {
    const compressed = { payload: payload(27182), expect_compressed: { value: true } };
    assert.equal((await upload([compressed])).code, grpc.status.INVALID_ARGUMENT);
    const plain = { payload: payload(45904), expect_compressed: { value: false }, flags: NO_COMPRESS };
    const by = connect(GZIP);
    const { code, details, response } = await upload([compressed, plain], { by });
    by.close();
    assert.equal(code, grpc.status.OK, details);
    assert.equal(response.aggregated_payload_size, 73086);
  },

  async server_streaming() {
    const { code, sizes } = await stream(client.StreamingOutputCall(downloads(...DOWNLOADS), patience()));
    assert.equal(code, grpc.status.OK);
    assert.deepEqual(sizes, DOWNLOADS);
  },

  async server_compressed_streaming() {
    const request = {
      response_parameters: [
        { size: 31415, compressed: { value: true } },
        { size: 92653, compressed: { value: false } },
      ],
    };
    const { code, details, sizes } = await stream(client.StreamingOutputCall(request, patience()));
    assert.equal(code, grpc.status.OK, details);
    assert.deepEqual(sizes, [31415, 92653]);
  },

  async ping_pong() {
    const duplex = client.FullDuplexCall(patience());
    const outcome = stream(duplex, (count) => (count < 4 ? duplex.write(pingPong(count)) : duplex.end()));
    duplex.write(pingPong(0));
    const { code, sizes } = await outcome;
    assert.equal(code, grpc.status.OK);
    assert.deepEqual(sizes, DOWNLOADS);
  },

  async half_duplex() {
    const duplex = client.HalfDuplexCall(patience());
    const outcome = stream(duplex);
    for (let i = 0; i < 4; i++) duplex.write(pingPong(i));
    duplex.end();
    const { code, sizes } = await outcome;
    assert.equal(code, grpc.status.OK);
    assert.deepEqual(sizes, DOWNLOADS);
  },

  async empty_stream() {
    const duplex = client.FullDuplexCall(patience());
    const outcome = stream(duplex);
    duplex.end();
    const { code, sizes } = await outcome;
    assert.equal(code, grpc.status.OK);
    assert.deepEqual(sizes, []);
  },

  async custom_metadata() {
    const metadata = new grpc.Metadata();
    metadata.set(INITIAL_KEY, 'test_initial_metadata_value');
    metadata.set(TRAILING_KEY, Buffer.from('ababab', 'hex'));
    checkEchoed(await unary((done) => client.UnaryCall(large(), metadata, patience(), done)));
    const duplex = client.FullDuplexCall(metadata, patience());
    const outcome = stream(duplex);
    duplex.end({ ...downloads(RESPONSE_SIZE), payload: payload(REQUEST_SIZE) });
    checkEchoed(await outcome);
  },

  async status_code_and_message() {
    const response_status = { code: grpc.status.UNKNOWN, message: STATUS_MESSAGE };
    checkStatus(await call({ response_status }), grpc.status.UNKNOWN, STATUS_MESSAGE);
    const duplex = client.FullDuplexCall(patience());
    const outcome = stream(duplex);
    duplex.end({ response_status });
    checkStatus(await outcome, grpc.status.UNKNOWN, STATUS_MESSAGE);
  },

  async special_status_message() {
    const response_status = { code: grpc.status.UNKNOWN, message: SPECIAL_MESSAGE };
    checkStatus(await call({ response_status }), grpc.status.UNKNOWN, SPECIAL_MESSAGE);
  },

  async unimplemented_method() {
    await checkUnimplemented('/grpc.testing.TestService/UnimplementedCall');
  },

  async unimplemented_service() {
    await checkUnimplemented('/grpc.testing.UnimplementedService/UnimplementedCall');
  },

  async cancel_after_begin() {
    const { code } = await unary((done) => {
      const sending = client.StreamingInputCall(patience(), done);
      process.nextTick(() => sending.cancel());
      return sending;
    });
    assert.equal(code, grpc.status.CANCELLED);
  },

  async cancel_after_first_response() {
    const duplex = client.FullDuplexCall(patience());
    const outcome = stream(duplex, () => duplex.cancel());
    duplex.write(pingPong(0));
    const { code, sizes } = await outcome;
    assert.deepEqual(sizes, [DOWNLOADS[0]]);
    assert.equal(code, grpc.status.CANCELLED);
  },

  async timeout_on_sleeping_server() {
    const duplex = client.FullDuplexCall({ deadline: Date.now() + 1 });
    const outcome = stream(duplex);
    duplex.write({ payload: payload(27182) });
    assert.equal((await outcome).code, grpc.status.DEADLINE_EXCEEDED);
  },

  async concurrent_large_unary() {
    const request = large();
    (await Promise.all(Array.from({ length: 200 }, () => call(request)))).forEach(checkLarge);
  },

  async rpc_soak() {
    for (let i = 0; i < 20; i++) await cases.large_unary();
  },

  async channel_soak() {
    for (let i = 0; i < 20; i++) {
      const fresh = connect({ 'grpc.use_local_subchannel_pool': 1 });
      checkLarge(await call(large(), {}, fresh));
      fresh.close();
    }
  },

  async long_lived_channel() {
    for (let i = 0; i < 4; i++) {
      await cases.large_unary();
      await pause(100);
    }
  },
};

async function main() {
  for await (const name of readline.createInterface({ input: process.stdin })) {
    const error = await cases[name]().then(
      () => null,
      (failure) => failure.stack,
    );
    process.stdout.write(`${JSON.stringify({ case: name, error })}\n`);
  }
  client.close();
}

main();
