// The form of a message: fields by their descriptors, which read and write one ProtoJSON value.

import { h, icon, withCode } from './dom.js';
import { readJson, readScalar, splitName, wellKnown, wrapped } from './schema.js';

let count = 0;

// Return the editor of a request.
//   changed: called with the value after each change
export function requestForm(types, type, value, changed) {
  if (!wellKnown(type)) return messageForm(types, type, value, () => changed(value));
  const id = `field-${++count}`;
  const name = splitName(type)[1];
  return h('div', { class: 'field' },
    h('div', { class: 'label' }, h('label', { for: id, class: 'name' }, name)),
    single(types, { kind: 'message', type }, value, (next) => changed(next ?? types.freshMessage(type)), id));
}

// Return the form of a message.
//   value: the object that the form changes in place
//   changed: called after each change
export function messageForm(types, type, value, changed) {
  const fields = types.get(type).fields;
  if (!fields.length) return h('p', { class: 'empty' }, 'This message has no fields.');
  const form = h('div', { class: 'fields' });
  const oneofs = new Set();
  for (const field of fields) {
    if (!field.oneof) form.append(fieldRow(types, field, value, changed));
    else if (!oneofs.has(field.oneof)) {
      oneofs.add(field.oneof);
      form.append(oneofRow(types, field.oneof, fields.filter((each) => each.oneof === field.oneof), value, changed));
    }
  }
  return form;
}

// Fields may be written by their JSON name or their proto name.
function keyOf(field, value) {
  return field.name in value && !(field.json in value) ? field.name : field.json;
}

function fieldRow(types, field, owner, changed) {
  const id = `field-${++count}`;
  const row = h('div', { class: 'field' });
  const render = () => {
    const key = keyOf(field, owner);
    const update = (value, redraw = false) => {
      if (value === undefined) delete owner[key];
      else owner[key] = value;
      changed();
      if (redraw) render();
    };
    row.replaceChildren(...parts(types, field, id, owner[key], update));
  };
  render();
  return row;
}

function parts(types, field, id, value, update) {
  if (field.kind === 'map') return container(field, id, mapEditor(types, field, value ?? {}, update, id), count_(value));
  if (field.repeated) return container(field, id, listEditor(types, field, value ?? [], update, id), count_(value));
  const isNested = field.kind === 'message' && !wellKnown(field.type);
  if (isNested) return nested(types, field, id, value, update);
  const optional = field.presence || field.kind === 'message';
  const isSet = value !== undefined;
  const label = h('div', { class: 'label' }, h('label', { for: id }, ...nameOf(field)), typeOf(field));
  const control = optional && !isSet
    ? h('button', { class: 'unset', type: 'button', id, 'aria-label': `Set ${field.name}`, on: { click: () => update(types.fresh(field), true) } }, icon('plus'), 'Set')
    : h('div', { class: 'control' },
      single(types, field, value, (next) => update(!optional && next !== undefined && types.isDefault(field, next) ? undefined : next), id),
      optional && removeButton(`Unset ${field.name}`, () => update(undefined, true)));
  return [label, control, comment(field, id)];
}

const count_ = (value) => (value ? Object.keys(value).length : 0);

function nameOf(field) {
  return [
    h('span', { class: field.deprecated ? 'name gone' : 'name' }, field.name),
    field.required && h('span', { class: 'must', title: 'required' }, '*'),
  ];
}

function typeText(kind) {
  return kind.type ? splitName(kind.type)[1] : kind.kind;
}

function typeOf(field) {
  const text = field.kind === 'map'
    ? `map<${field.key.kind}, ${typeText(field.value)}>` : `${field.repeated ? 'repeated ' : ''}${typeText(field)}`;
  return h('span', { class: 'type', title: field.type ?? '' }, text, field.deprecated && ' · deprecated');
}

function comment(field, id) {
  return field.comment && h('p', { class: 'comment', id: `${id}-about` }, ...withCode(field.comment));
}

function removeButton(label, remove) {
  return h('button', { class: 'icon small', type: 'button', 'aria-label': label, title: label, on: { click: remove } }, icon('close'));
}

function container(field, id, body, size) {
  return [
    h('div', { class: 'label', id }, ...nameOf(field), typeOf(field), size > 0 && h('span', { class: 'badge' }, size)),
    h('div', { role: 'group', 'aria-labelledby': id, class: 'items' }, body),
    comment(field, id),
  ];
}

function nested(types, field, id, value, update) {
  const label = h('div', { class: 'label', id }, ...nameOf(field), typeOf(field));
  if (value === undefined || value === null) {
    const add = () => update({}, true);
    return [label, h('button', { class: 'unset', type: 'button', 'aria-label': `Set ${field.name}`, on: { click: add } }, icon('plus'), 'Set'), comment(field, id)];
  }
  const body = h('div', { class: 'nested', role: 'group', 'aria-labelledby': id }, nestedForm(types, field.type, value, () => update(value)));
  label.append(removeButton(`Unset ${field.name}`, () => update(undefined, true)));
  return [label, body, comment(field, id)];
}

function nestedForm(types, type, value, changed) {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return wrong();
  return messageForm(types, type, value, changed);
}

function wrong() {
  return h('p', { class: 'problem' }, 'The JSON has another form here.');
}

function oneofRow(types, name, fields, owner, changed) {
  const id = `field-${++count}`;
  const row = h('div', { class: 'field oneof' });
  const chosen = () => fields.find((field) => owner[keyOf(field, owner)] !== undefined);
  const render = () => {
    const current = chosen();
    const select = h('select', {
      id, on: {
        change: () => {
          for (const field of fields) delete owner[keyOf(field, owner)];
          const next = fields.find((field) => field.name === select.value);
          if (next) owner[next.json] = types.fresh(next);
          changed();
          render();
          row.querySelector('select').focus();
        },
      },
    }, h('option', { value: '' }, '— none —'), ...fields.map((field) => h('option', { value: field.name, selected: field === current }, `${field.name}: ${typeText(field)}`)));
    row.replaceChildren(
      h('div', { class: 'label' }, h('label', { for: id, class: 'name' }, name), h('span', { class: 'type' }, 'oneof')),
      h('div', { class: 'control' }, select),
    );
    if (!current) return;
    const key = keyOf(current, owner);
    const update = (value) => {
      owner[key] = value ?? types.fresh(current);
      changed();
    };
    row.append(h('div', { class: 'nested' }, item(types, current, owner[key], update, `${id}-value`, current.name), comment(current, id) || null));
  };
  render();
  return row;
}

// The editor of one value: an item of a list, the value of a map, or a member of a oneof.
function item(types, kind, value, update, id, label) {
  if (kind.kind === 'message' && !wellKnown(kind.type)) return nestedForm(types, kind.type, value, () => update(value));
  return single(types, kind, value, update, id, label);
}

function listEditor(types, field, values, update, id) {
  const list = h('ol', { class: 'list' });
  if (!Array.isArray(values)) return wrong();
  const render = () => {
    list.replaceChildren(...values.map((value, i) => h('li', {},
      item(types, field, value, (next) => {
        values[i] = next ?? types.fresh(field);
        update(values);
      }, `${id}-${i}`, `${field.name} ${i + 1}`),
      removeButton(`Remove ${field.name} ${i + 1}`, () => {
        values.splice(i, 1);
        update(values.length ? values : undefined, true);
      }))));
  };
  render();
  const add = h('button', {
    class: 'unset', type: 'button', 'aria-label': `Add to ${field.name}`, on: {
      click: () => {
        update([...values, types.fresh(field)], true);
      },
    },
  }, icon('plus'), 'Add');
  return h('div', {}, list, add);
}

function mapEditor(types, field, values, update, id) {
  if (typeof values !== 'object' || Array.isArray(values)) return wrong();
  const rows = Object.entries(values).map(([key, value], i) => {
    const rename = (event) => {
      const found = field.key.kind === 'bool' ? { value: event.target.value } : readScalar(field.key.kind, event.target.value);
      const next = String(found.value);
      mark(event.target, found.problem ?? (next !== key && next in values ? 'Another entry has this key' : ''));
      if (found.problem || (next !== key && next in values)) return;
      const entries = Object.entries(values).map(([each, its]) => [each === key ? next : each, its]);
      update(Object.fromEntries(entries), true);
    };
    return h('li', { class: 'pair' },
      h('input', { value: key, 'aria-label': `Key ${i + 1} of ${field.name}`, spellcheck: 'false', on: { change: rename } }),
      h('div', { class: 'pair-value' }, item(types, field.value, value, (next) => {
        values[key] = next ?? types.fresh(field.value);
        update(values);
      }, `${id}-${i}`, `Value ${i + 1} of ${field.name}`)),
      removeButton(`Remove ${key} of ${field.name}`, () => {
        const rest = Object.fromEntries(Object.entries(values).filter(([each]) => each !== key));
        update(count_(rest) ? rest : undefined, true);
      }));
  });
  const add = () => {
    const isText = field.key.kind === 'string';
    let key = isText ? 'key' : field.key.kind === 'bool' ? 'true' : '0';
    for (let i = 1; key in values; i++) key = isText ? `key${i}` : field.key.kind === 'bool' ? 'false' : String(i);
    update({ ...values, [key]: types.fresh(field.value) }, true);
  };
  return h('div', {}, h('ol', { class: 'list' }, ...rows),
    h('button', { class: 'unset', type: 'button', 'aria-label': `Add to ${field.name}`, on: { click: add } }, icon('plus'), 'Add'));
}

function mark(input, problem) {
  input.setCustomValidity(problem ?? '');
  input.setAttribute('aria-invalid', String(Boolean(problem)));
  input.title = problem ?? '';
}

// The control of a scalar, an enum, or a message with a special form in JSON.
function single(types, kind, value, update, id, label) {
  const named = { id, 'aria-label': label, 'aria-describedby': `${id}-about` };
  const known = kind.kind === 'message' ? wellKnown(kind.type) : '';
  const scalar = wrapped(kind.type) || (known ? '' : kind.kind);
  if (scalar === 'bool') {
    return h('input', { ...named, type: 'checkbox', class: 'switch', role: 'switch', checked: value === true, on: { change: (event) => update(event.target.checked) } });
  }
  if (scalar === 'enum') return enumSelect(types, kind.type, value, update, named);
  if (scalar === 'string') return textArea(value ?? '', update, named);
  if (scalar === 'bytes') return bytesInput(value ?? '', update, named);
  if (scalar) return numberInput(scalar, value, update, named);
  if (known === 'Timestamp') return timestampInput(value, update, named);
  if (known === 'Duration') return textInput(value ?? '', 'such as 1.5s', /^-?\d+(\.\d{1,9})?s$/, 'Seconds with an s, such as 1.5s', update, named);
  if (known === 'FieldMask') return textInput(value ?? '', 'paths, such as name,author.number', null, '', update, named);
  if (known === 'Empty') return h('p', { class: 'empty' }, 'Empty');
  return jsonArea(value, update, named, known === 'Any' ? '{"@type": "type.googleapis.com/…", …}' : 'JSON');
}

function enumSelect(types, type, value, update, named) {
  const values = types.get(type).values;
  const current = typeof value === 'number' ? values.find((each) => each.number === value)?.name : value;
  const select = h('select', { ...named, on: { change: () => update(select.value) } },
    ...values.map((each) => h('option', { value: each.name, selected: each.name === (current ?? values[0]?.name), title: each.comment }, `${each.name} = ${each.number}`)));
  return select;
}

function textArea(value, update, named) {
  const area = h('textarea', { ...named, rows: '1', spellcheck: 'false', value: String(value), on: { input: () => { update(area.value); grow(); } } });
  const grow = () => { area.rows = Math.min(12, Math.max(1, area.value.split('\n').length)); };
  grow();
  return area;
}

function textInput(value, placeholder, pattern, problem, update, named) {
  const input = h('input', {
    ...named, value, placeholder, spellcheck: 'false', autocomplete: 'off', on: {
      input: () => {
        mark(input, pattern && !pattern.test(input.value) ? problem : '');
        update(input.value);
      },
    },
  });
  return input;
}

function numberInput(kind, value, update, named) {
  const input = h('input', {
    ...named, class: 'number', inputmode: 'decimal', autocomplete: 'off', placeholder: '0', value: value === undefined ? '' : String(value), on: {
      input: () => {
        if (!input.value.trim()) {
          mark(input, '');
          update(undefined);
          return;
        }
        const read = readScalar(kind, input.value);
        mark(input, read.problem);
        if (!read.problem) update(read.value);
      },
    },
  });
  return input;
}

function bytesInput(value, update, named) {
  const area = h('textarea', {
    ...named, rows: '1', class: 'mono', placeholder: 'base64', spellcheck: 'false', value: String(value), on: {
      input: () => {
        const read = readScalar('bytes', area.value);
        mark(area, read.problem);
        if (!read.problem) update(read.value);
      },
    },
  });
  const size = h('span', { class: 'type' });
  const file = h('input', {
    type: 'file', class: 'unseen', tabindex: '-1', 'aria-hidden': 'true', on: {
      change: async () => {
        const bytes = new Uint8Array(await file.files[0].arrayBuffer());
        area.value = toBase64(bytes);
        size.textContent = `${file.files[0].name}, ${bytes.length} bytes`;
        update(area.value);
      },
    },
  });
  const choose = h('button', { class: 'icon small', type: 'button', 'aria-label': 'Take the bytes of a file', title: 'Take the bytes of a file', on: { click: () => file.click() } }, icon('file'));
  return h('div', { class: 'with-button' }, area, choose, file, size);
}

export function toBase64(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return btoa(text);
}

function timestampInput(value, update, named) {
  const input = textInput(value ?? '', 'such as 2026-01-31T12:00:00Z', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/, 'A time such as 2026-01-31T12:00:00Z', update, named);
  const now = h('button', {
    class: 'icon small', type: 'button', 'aria-label': 'Now', title: 'Now', on: {
      click: () => {
        input.value = new Date().toISOString();
        mark(input, '');
        update(input.value);
      },
    },
  }, icon('clock'));
  return h('div', { class: 'with-button' }, input, now);
}

function jsonArea(value, update, named, placeholder) {
  const area = h('textarea', {
    ...named, class: 'mono', rows: '3', placeholder, spellcheck: 'false', value: value === undefined ? '' : JSON.stringify(value, null, 2), on: {
      input: () => {
        try {
          const read = readJson(area.value);
          mark(area, '');
          update(read);
        } catch (error) {
          mark(area, error.message);
        }
      },
    },
  });
  return area;
}
