// The types of messages, and ProtoJSON values of them: https://protobuf.dev/programming-guides/json/.

const WRAPPED = {
  BoolValue: 'bool', StringValue: 'string', BytesValue: 'bytes', Int32Value: 'int32', Int64Value: 'int64',
  UInt32Value: 'uint32', UInt64Value: 'uint64', FloatValue: 'float', DoubleValue: 'double',
};
const WELL_KNOWN = new Set(['Any', 'Timestamp', 'Duration', 'FieldMask', 'Struct', 'Value', 'ListValue', 'Empty']);
const LIMITS = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n], uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n], uint64: [0n, 2n ** 64n - 1n],
};
const SAME = { sint32: 'int32', sfixed32: 'int32', fixed32: 'uint32', sint64: 'int64', sfixed64: 'int64', fixed64: 'uint64' };

// The name of a type of google.protobuf that has a special form in JSON; empty for others.
export function wellKnown(type) {
  const name = type?.startsWith('google.protobuf.') ? type.slice('google.protobuf.'.length) : '';
  return WELL_KNOWN.has(name) || name in WRAPPED ? name : '';
}

export function wrapped(type) {
  return WRAPPED[wellKnown(type)] ?? '';
}

export class Types {
  constructor(types) {
    this.byName = new Map(types.map((type) => [type.name, type]));
  }

  get(name) {
    return this.byName.get(name) ?? { name, fields: [], values: [], comment: '' };
  }

  // The value of a field, or of one of its items, that a user has just added.
  fresh(kind) {
    if (kind.kind === 'message') return this.freshMessage(kind.type);
    if (kind.kind === 'enum') return this.enumDefault(kind.type);
    if (kind.kind === 'bool') return false;
    if (kind.kind === 'string' || kind.kind === 'bytes') return '';
    return /64$/.test(kind.kind) ? '0' : 0;
  }

  freshMessage(type) {
    const name = wellKnown(type);
    if (wrapped(type)) return this.fresh({ kind: wrapped(type) });
    if (name === 'Timestamp') return new Date().toISOString();
    if (name === 'Duration') return '1s';
    if (name === 'FieldMask') return '';
    if (name === 'ListValue') return [];
    if (name === 'Value') return null;
    if (name === 'Any') return { '@type': '' };
    return {};
  }

  enumDefault(type) {
    if (type === 'google.protobuf.NullValue') return null;
    return this.get(type).values[0]?.name ?? 0;
  }

  // A message with every field set, for users to change; a recursive field is left out.
  example(type, outer = []) {
    const made = {};
    const oneofs = new Set();
    for (const field of this.get(type).fields) {
      if (field.oneof && oneofs.has(field.oneof)) continue;
      oneofs.add(field.oneof);
      const value = this.exampleOf(field.kind === 'map' ? field.value : field, [...outer, type]);
      if (value === undefined) continue;
      if (field.kind === 'map') made[field.json] = { [this.exampleKey(field.key.kind)]: value };
      else made[field.json] = field.repeated ? [value] : value;
    }
    return made;
  }

  exampleOf(kind, outer) {
    if (kind.kind !== 'message') return kind.kind === 'enum' ? this.exampleEnum(kind.type) : kind.kind === 'string' ? kind.name ?? 'text' : this.fresh(kind);
    if (wellKnown(kind.type)) return kind.type === 'google.protobuf.Any' ? undefined : this.freshMessage(kind.type);
    return outer.includes(kind.type) || outer.length > 4 ? undefined : this.example(kind.type, outer);
  }

  exampleEnum(type) {
    const values = this.get(type).values;
    return type === 'google.protobuf.NullValue' ? null : (values[1] ?? values[0])?.name;
  }

  exampleKey(kind) {
    return kind === 'string' ? 'key' : kind === 'bool' ? 'true' : '1';
  }

  // True if a value without this field means the same: its presence is not tracked.
  isDefault(kind, value) {
    if (kind.kind === 'enum') return value === this.enumDefault(kind.type) || value === 0;
    if (/64$/.test(kind.kind)) return String(value) === '0';
    return value === '' || value === 0 || value === false;
  }
}

// A whole number with more digits than JavaScript's numbers have.
class LongNumber {
  constructor(digits) {
    this.digits = digits;
  }

  toString() {
    return this.digits;
  }

  toJSON() {
    return JSON.rawJSON(this.digits);
  }
}

// Return the value of JSON text. Numbers keep their digits, where the browser knows them:
// https://developer.mozilla.org/docs/Web/JavaScript/Reference/Global_Objects/JSON/parse
export function readJson(text) {
  return JSON.parse(text, (_, value, context) => {
    const isLong = JSON.rawJSON && typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source);
    return isLong ? new LongNumber(context.source) : value;
  });
}

// The value of a scalar that is typed as text, or the reason why it is not one.
export function readScalar(kind, text) {
  if (kind === 'string') return { value: text };
  const trimmed = text.trim();
  if (kind === 'bytes') {
    return /^[A-Za-z0-9+/_-]*={0,2}$/.test(trimmed) && trimmed.replace(/=+$/, '').length % 4 !== 1
      ? { value: trimmed } : { problem: 'Bytes are base64' };
  }
  if (kind === 'float' || kind === 'double') {
    if (/^(NaN|-?Infinity)$/.test(trimmed)) return { value: trimmed };
    const number = Number(trimmed);
    return trimmed && Number.isFinite(number) ? { value: number } : { problem: 'A number, NaN, Infinity or -Infinity' };
  }
  const base = SAME[kind] ?? kind;
  const [low, high] = LIMITS[base];
  if (!/^-?\d+$/.test(trimmed)) return { problem: 'A whole number' };
  const number = BigInt(trimmed);
  if (number < low || number > high) return { problem: `From ${low} to ${high}` };
  return { value: /64$/.test(base) ? String(number) : Number(number) };
}

export const CARDINALITY = {
  'false,false': 'unary', 'false,true': 'server stream', 'true,false': 'client stream', 'true,true': 'bidi stream',
};

export function cardinalityOf(method) {
  return CARDINALITY[[method.clientStreaming, method.serverStreaming]];
}

// "hello_world.Greeter" → ["hello_world", "Greeter"]
export function splitName(name) {
  const dot = name.lastIndexOf('.');
  return [name.slice(0, Math.max(dot, 0)), name.slice(dot + 1)];
}
