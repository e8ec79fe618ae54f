// The same call for a terminal or a program. Credentials are variables, so that they are not copied.

import { splitName } from './schema.js';

const SECRET = /^(authorization|x-api-key|cookie|proxy-authorization)$|token|secret|password/;

export function isSecret(key) {
  return SECRET.test(key.toLowerCase());
}

// Text as one word of a shell.
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// A header for a shell, with a variable in place of a secret.
function header([key, value]) {
  if (!isSecret(key)) return quoted(`${key}: ${value}`);
  const scheme = /^(Bearer|Basic) /.exec(value)?.[0] ?? '';
  return `"${key}: ${scheme}$${variable(key)}"`;
}

function variable(key) {
  return key.toLowerCase() === 'authorization' ? 'TOKEN' : key.toUpperCase().replace(/\W/g, '_');
}

function lines(first, rest) {
  return [first, ...rest].join(' \\\n  ');
}

export function isTls(target) {
  return /^(https|grpcs):/.test(target);
}

export const SNIPPETS = {
  'sdk call': sdkCall,
  grpcurl,
  curl,
  Python: python,
};

function data(messages) {
  return messages.map(compact).join(' ');
}

// JSON on one line, with its numbers as they were typed.
function compact(text) {
  try {
    const value = JSON.parse(text);
    return /\d{16}/.test(text) ? text.replace(/\n\s*/g, ' ') : JSON.stringify(value);
  } catch {
    return text;
  }
}

function sdkCall({ target, application, method, messages, metadata, timeout }) {
  return lines(`sdk call ${quoted(target)} ${quoted(method.path)}`, [
    ...(messages.length ? [`-d ${quoted(data(messages))}`] : []),
    ...(application ? [`--application ${quoted(application)}`] : []),
    ...metadata.map((pair) => `-H ${header(pair)}`),
    ...(timeout ? [`--timeout ${timeout}`] : []),
  ]);
}

function grpcurl({ target, application, method, messages, metadata, timeout }) {
  return lines('grpcurl', [
    ...(isTls(target) ? [] : ['-plaintext']),
    ...(application ? [['application', application]] : []).concat(metadata).map((pair) => `-H ${header(pair)}`),
    ...(timeout ? [`-max-time ${timeout}`] : []),
    ...(messages.length ? [`-d ${quoted(data(messages))}`] : []),
    `${quoted(address(target))} ${quoted(method.path)}`,
  ]);
}

function address(target) {
  const plain = target.replace(/^\w+:\/\//, '').replace(/\/$/, '');
  return /:\d+$/.test(plain) ? plain : `${plain}:443`;
}

function curl({ target, application, method, messages, metadata, timeout }) {
  const base = /^\w+:\/\//.test(target) ? target.replace(/^grpc/, 'http').replace(/\/$/, '') : `http://${target}`;
  const body = messages.map(compact).join('\n');
  const kind = method.clientStreaming ? 'application/x-ndjson' : 'application/json';
  return lines(`curl ${method.serverStreaming ? '-N ' : ''}${quoted(`${base}/${method.path}`)}`, [
    `-H ${quoted(`content-type: ${kind}`)}`,
    ...(application ? [['application', application]] : []).concat(metadata).map((pair) => `-H ${header(pair)}`),
    ...(timeout ? [`-H ${quoted(`connect-timeout-ms: ${Math.round(timeout * 1000)}`)}`] : []),
    `${method.clientStreaming ? '--data-binary' : '-d'} ${quoted(body || (method.clientStreaming ? '' : '{}'))}`,
  ]);
}

function moduleOf(file, suffix) {
  return (file ?? '').replace(/\.proto$/, '').replaceAll('-', '_').replaceAll('/', '.') + suffix;
}

function python({ target, application, method, messages, metadata, timeout, service, types }) {
  const [, name] = splitName(service.name);
  const request = types.get(method.request);
  const [, kind] = splitName(method.request);
  const nested = method.request.slice(0, -kind.length - 1);
  const isNested = types.byName.has(nested);
  const outer = isNested ? `${splitName(nested)[1]}.${kind}` : kind;
  const from = moduleOf(request.file, '_pb2');
  const options = [
    ...(application ? [`application=${literal(application)}`] : []),
    ...(metadata.length ? [`metadata=[${metadata.map(([key, value]) => `(${literal(key)}, ${isSecret(key) ? `os.environ[${literal(variable(key))}]` : literal(value)})`).join(', ')}]`] : []),
    ...(timeout ? [`timeout=${timeout}`] : []),
  ];
  const parsed = messages.map((text) => `ParseDict(${pythonValue(text)}, ${outer}())`);
  const sent = method.clientStreaming ? `requests = [${parsed.map((each) => `\n    ${each},`).join('')}${parsed.length ? '\n' : ''}]` : `request = ${parsed[0]}`;
  const call = `client.${method.name}(${[sent.split(' ')[0], ...options].join(', ')})`;
  return [
    ...(metadata.some(([key]) => isSecret(key)) ? ['import os', ''] : []),
    'from google.protobuf.json_format import ParseDict',
    '',
    `from ${from} import ${outer.split('.')[0]}`,
    `from ${moduleOf(service.file, '_sdk')} import ${name}SyncClient`,
    '',
    sent,
    `with ${name}SyncClient(${literal(target)}) as client:`,
    ...(method.serverStreaming ? [`    for reply in ${call}:`, '        print(reply)'] : [`    print(${call})`]),
  ].join('\n');
}

function literal(text) {
  return JSON.stringify(text);
}

function pythonValue(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return '{}';
  }
  return show(value);
}

function show(value) {
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(show).join(', ')}]`;
  if (typeof value === 'object') return `{${Object.entries(value).map(([key, each]) => `${literal(key)}: ${show(each)}`).join(', ')}}`;
  return JSON.stringify(value);
}
