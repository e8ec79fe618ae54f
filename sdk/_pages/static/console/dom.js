// Elements, icons, and small parts of the page.

const SVG = 'http://www.w3.org/2000/svg';

// Return an element. Attributes: `class`, `on` (listeners by event), properties such as `value`, and all others.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === 'value' || name === 'checked' || name === 'selected') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const PATHS = {
  menu: 'M3 6h18M3 12h18M3 18h18',
  sun: 'M12 4V2m0 20v-2m8-8h2M2 12h2m13.7-5.7 1.4-1.4M4.9 19.1l1.4-1.4m0-11.4L4.9 4.9m14.2 14.2-1.4-1.4M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z',
  moon: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z',
  auto: 'M12 3a9 9 0 1 0 0 18zm0 0a9 9 0 0 1 0 18',
  key: 'M7.5 11a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM11 12.5 20 3.5M16 7.5l3 3M13.5 10l1.5 1.5',
  help: 'M9.2 9a2.8 2.8 0 1 1 3.9 2.6c-.8.4-1.1.9-1.1 1.9m0 3h.01M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
  plus: 'M12 5v14M5 12h14',
  close: 'M6 6l12 12M18 6 6 18',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  check: 'M5 13l4 4L19 7',
  play: 'M7 5l12 7-12 7z',
  stop: 'M7 7h10v10H7z',
  file: 'M14 3H6v18h12V7zm0 0v4h4',
  arrow: 'M9 6l6 6-6 6',
  clock: 'M12 7v5l3 2M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z',
};

export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `glyph glyph-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

// A line of numbers; null where there is no number.
export function sparkline(values, label) {
  const [width, height] = [96, 22];
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.setAttribute('class', 'spark');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', label);
  const most = Math.max(...values, 1e-9);
  const step = width / Math.max(values.length - 1, 1);
  const points = values.map((value, i) => `${(i * step).toFixed(1)},${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`);
  const line = document.createElementNS(SVG, 'polyline');
  line.setAttribute('points', points.join(' '));
  svg.append(line);
  return svg;
}

let announced;
export function announce(text) {
  announced ??= document.getElementById('announce');
  announced.textContent = text;
}

// A button that copies the text that a function returns.
export function copyButton(label, text) {
  const button = h('button', { class: 'icon small', type: 'button', 'aria-label': label, title: label }, icon('copy'));
  button.addEventListener('click', async () => {
    const done = await copy(text());
    button.replaceChildren(icon(done ? 'check' : 'copy'));
    announce(done ? 'Copied' : 'The browser refuses to copy');
    setTimeout(() => button.replaceChildren(icon('copy')), 1500);
  });
  return button;
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // not a secure context, or no permission
    const area = h('textarea', { class: 'unseen', 'aria-hidden': 'true', value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    return done;
  }
}

// JSON text as elements, with colours for its parts.
export function highlighted(text) {
  const code = h('code', { class: 'json' });
  const token = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  let end = 0;
  for (const match of text.matchAll(token)) {
    code.append(text.slice(end, match.index));
    const kind = match[1] ? (match[2] ? 'key' : 'string') : /^[tfn]/.test(match[0]) ? 'word' : 'number';
    code.append(h('span', { class: `j-${kind}` }, match[1] ?? match[0]), match[2] ?? '');
    end = match.index + match[0].length;
  }
  code.append(text.slice(end));
  return code;
}

// Text of a proto's comment: paragraphs, and `code`.
export function prose(text) {
  return h('div', { class: 'prose' }, ...text.split(/\n\s*\n/).map((paragraph) => h('p', {}, ...withCode(paragraph))));
}

export function withCode(text) {
  return text.split(/(`[^`]+`)/).map((part) => (/^`.+`$/.test(part) ? h('code', {}, part.slice(1, -1)) : part));
}

export function tabs(label, names, onChoose) {
  const buttons = names.map((name, i) => h('button', {
    type: 'button', role: 'tab', id: `${label}-${i}`.replace(/\W/g, '-'), on: {
      click: () => choose(i),
      keydown: (event) => {
        const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!by) return;
        const next = (i + by + names.length) % names.length;
        choose(next);
        buttons[next].focus();
      },
    },
  }, name));
  function choose(chosen, silent = false) {
    buttons.forEach((button, i) => {
      button.setAttribute('aria-selected', String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
    });
    if (!silent) onChoose(chosen);
  }
  return { element: h('div', { class: 'tabs', role: 'tablist', 'aria-label': label }, ...buttons), choose, buttons };
}
