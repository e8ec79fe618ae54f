// What this page asks the server that it came from: the services, the state of the cluster, and calls.
//
// `sdk console` makes each call itself, and reports what happens as lines of JSON. The ingress has no such server: there
// the page is a client of the Connect protocol, https://connectrpc.com/docs/protocol.

const TOKEN = 'sdk.console.token';
const CODES = [
  'OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND', 'ALREADY_EXISTS', 'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'ABORTED', 'OUT_OF_RANGE', 'UNIMPLEMENTED', 'INTERNAL', 'UNAVAILABLE',
  'DATA_LOSS', 'UNAUTHENTICATED',
];
// Headers of HTTP, not metadata of the call.
const NOT_METADATA = /^(content-|date$|server$|transfer-encoding$|vary$|connection$|x-envoy-|access-control-|connect-|cache-control$)/;

// A request that was refused: its message is for people, and `status` that of HTTP, 0 without an answer.
export class RequestError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The token of `sdk console` comes behind the # of its link, and stays for this tab only.
export function takeToken() {
  const found = /^#token=([\w-]+)$/.exec(location.hash);
  if (!found) return;
  sessionStorage.setItem(TOKEN, found[1]);
  history.replaceState(null, '', location.pathname);
}

export class Server {
  constructor() {
    this.credentials = { token: '', key: '' };
    this.target = location.host;
    this.isConsole = false;
  }

  // Metadata that says who calls.
  get identity() {
    const pairs = [];
    if (this.credentials.token) pairs.push(['authorization', `Bearer ${this.credentials.token}`]);
    if (this.credentials.key) pairs.push(['x-api-key', this.credentials.key]);
    return pairs;
  }

  async load() {
    const found = await this.get('/-/console/services');
    this.isConsole = found.calls === 'console';
    this.target = found.target || location.host;
    return found.applications ?? [];
  }

  cluster() {
    return this.get('/-/console/cluster');
  }

  async get(path) {
    const response = await this.fetch(path, { headers: Object.fromEntries(this.identity) });
    return response.json();
  }

  // Return an answer with a good status.
  async fetch(path, options) {
    const token = sessionStorage.getItem(TOKEN);
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...options.headers, ...(token ? { 'x-console-token': token } : {}) } });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new RequestError(this.isConsole ? 'The console does not answer: `sdk console` has ended.' : 'The ingress does not answer. Is it running?', 0);
    }
    if (response.ok) return response;
    const body = await response.json().catch(() => ({}));
    throw new RequestError(body.message ?? `${response.status} ${response.statusText}`, response.status);
  }

  // Start a call; `report` gets its events: headers, message, end.
  start(request, report) {
    const abort = new AbortController();
    const call = this.isConsole ? new ConsoleCall(this, request, report, abort) : new ConnectCall(this, request, report, abort);
    return call;
  }
}

class Call {
  constructor(server, request, report, abort) {
    this.server = server;
    this.request = request;
    this.report = report;
    this.abort = abort;
    this.began = performance.now();
    this.canSend = false;
    this.done = this.run().catch((error) => {
      if (error.name === 'AbortError') this.end('CANCELLED', 'You cancelled the call.');
      else if (error instanceof RequestError) report({ event: 'problem', message: error.message });
      else this.end('UNAVAILABLE', `The connection broke: ${error.message}`);
    });
  }

  cancel() {
    this.abort.abort();
  }

  end(code, message = '', { details = [], trailing = [] } = {}) {
    const status = { code, number: Math.max(CODES.indexOf(code), 0), message, details };
    this.report({ event: 'end', status, trailing_metadata: trailing, seconds: (performance.now() - this.began) / 1000 });
  }
}

class ConsoleCall extends Call {
  async run() {
    const { application, method, messages, metadata, timeout, open } = this.request;
    const body = { application, path: method.path, messages, metadata, timeout, open };
    const response = await this.post('/-/console/calls', body);
    this.id = response.headers.get('x-console-call');
    this.canSend = Boolean(open);
    let last = null;
    for await (const line of lines(response.body)) {
      last = JSON.parse(line);
      this.report(last);
    }
    if (last?.event !== 'end' && last?.event !== 'problem') this.end('UNAVAILABLE', '`sdk console` has ended.');
  }

  // Send more messages of a stream; without `open`, they are the last.
  async send(messages, open) {
    if (!open) this.canSend = false;
    await this.post(`/-/console/calls/${this.id}`, { messages, open });
  }

  post(path, body) {
    return this.server.fetch(path, {
      method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal: this.abort.signal,
    });
  }
}

class ConnectCall extends Call {
  async run() {
    const { application, method, messages, metadata, timeout } = this.request;
    const isStream = method.clientStreaming || method.serverStreaming;
    const headers = new Headers(metadata);
    headers.set('content-type', isStream ? 'application/connect+json' : 'application/json');
    headers.set('connect-protocol-version', '1');
    if (application) headers.set('application', application);
    if (timeout) headers.set('connect-timeout-ms', String(Math.round(timeout * 1000)));
    const body = isStream ? new Blob(messages.map(envelope)) : messages[0];
    const response = await fetch(`/${method.path}`, { method: 'POST', headers, body, signal: this.abort.signal });
    const pairs = [...response.headers].filter(([key]) => !NOT_METADATA.test(key) && key !== 'call-status');
    const trailing = pairs.filter(([key]) => key.startsWith('trailer-')).map(([key, value]) => [key.slice('trailer-'.length), value]);
    this.report({ event: 'headers', metadata: pairs.filter(([key]) => !key.startsWith('trailer-')) });
    if (!isStream || !response.headers.get('content-type')?.startsWith('application/connect+')) {
      const answer = await response.json().catch(() => ({ code: 'unknown', message: `${response.status} ${response.statusText}` }));
      if (!response.ok) return this.fail(answer, trailing);
      this.report({ event: 'message', message: answer });
      return this.end('OK', '', { trailing });
    }
    for await (const [flags, message] of envelopes(response.body)) {
      if (!(flags & 2)) this.report({ event: 'message', message });
      else {
        const metadata = Object.entries(message.metadata ?? {}).flatMap(([key, values]) => values.map((value) => [key, value]));
        return message.error ? this.fail(message.error, metadata) : this.end('OK', '', { trailing: metadata });
      }
    }
    return this.end('UNAVAILABLE', 'The stream broke off.');
  }

  fail(error, trailing) {
    const code = error.code === 'canceled' ? 'CANCELLED' : String(error.code ?? 'unknown').toUpperCase();
    const details = (error.details ?? []).map((each) => ({ '@type': each.type, ...(each.debug ?? { '@value': each.value }) }));
    this.end(code, error.message ?? '', { details, trailing });
  }
}

function envelope(text) {
  const data = new TextEncoder().encode(text);
  const bytes = new Uint8Array(5 + data.length);
  new DataView(bytes.buffer).setUint32(1, data.length);
  bytes.set(data, 5);
  return bytes;
}

async function* envelopes(body) {
  let rest = new Uint8Array();
  for await (const chunk of chunks(body)) {
    const joined = new Uint8Array(rest.length + chunk.length);
    joined.set(rest);
    joined.set(chunk, rest.length);
    rest = joined;
    while (rest.length >= 5) {
      const length = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
      if (rest.length < 5 + length) break;
      yield [rest[0], JSON.parse(new TextDecoder().decode(rest.subarray(5, 5 + length)))];
      rest = rest.slice(5 + length);
    }
  }
}

async function* lines(body) {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of chunks(body)) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop();
    yield* parts;
  }
}

async function* chunks(body) {
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
