// What a call answers, as it comes.

import { announce, copyButton, h, highlighted } from './dom.js';

// The newest messages that are shown; all are counted.
const SHOWN = 300;
// Characters of a message of a stream that is shown on one line.
const ONE_LINE = 90;

export class ResponseView {
  constructor(isStream) {
    this.isStream = isStream;
    this.head = h('div', { class: 'outcome' });
    this.messages = h('ol', { class: 'messages' });
    this.more = h('p', { class: 'empty', hidden: true });
    this.rest = h('div', { class: 'rest' });
    this.body = h('div', { class: 'response-body' }, this.more, this.messages, this.rest);
    this.element = h('section', { class: 'pane response', 'aria-label': 'Response' }, h('div', { class: 'pane-head' }, h('h2', {}, 'Response'), this.head), this.body);
    this.clear();
  }

  clear() {
    this.head.replaceChildren();
    this.messages.replaceChildren();
    this.more.hidden = true;
    this.rest.replaceChildren(h('p', { class: 'blank' }, 'The answer appears here. ', h('kbd', {}, 'Ctrl'), ' ', h('kbd', {}, 'Enter'), ' calls.'));
    this.count = 0;
  }

  begin() {
    this.clear();
    this.rest.replaceChildren();
    this.began = performance.now();
    this.time = h('span', { class: 'fact' });
    this.number = h('span', { class: 'fact' });
    this.head.replaceChildren(h('span', { class: 'pill running' }, h('span', { class: 'pulse', 'aria-hidden': 'true' }), 'Running'), this.time, this.number);
    this.tick();
    this.timer = setInterval(() => this.tick(), 100);
    announce('The call runs');
  }

  tick() {
    this.time.textContent = duration((performance.now() - this.began) / 1000);
    this.number.textContent = this.count ? many(this.count, 'message') : '';
  }

  take(event) {
    if (event.event === 'headers') this.headers = event.metadata;
    else if (event.event === 'message') this.message(event.message);
    else if (event.event === 'end') this.end(event);
    else this.problem(event.message);
  }

  message(message) {
    this.count += 1;
    const line = JSON.stringify(message);
    const isShort = this.isStream && line.length <= ONE_LINE;
    const text = isShort ? line : JSON.stringify(message, null, 2);
    const nearEnd = isAtEnd(this.body);
    this.messages.append(h('li', { class: isShort ? 'message short' : 'message' },
      h('div', { class: 'message-head' }, h('span', {}, `#${this.count}`), h('span', {}, `+${duration((performance.now() - this.began) / 1000)}`),
        copyButton(`Copy message ${this.count}`, () => text)),
      h('pre', { tabindex: '0', 'aria-label': `Message ${this.count}` }, highlighted(text))));
    if (this.messages.children.length > SHOWN) {
      this.messages.firstChild.remove();
      this.more.hidden = false;
      this.more.textContent = `The newest ${SHOWN} of ${this.count} messages`;
    }
    if (nearEnd && this.count > 1) this.body.scrollTop = this.body.scrollHeight;
  }

  end({ status, trailing_metadata: trailing, seconds }) {
    clearInterval(this.timer);
    const isOk = status.code === 'OK';
    this.head.replaceChildren(
      h('span', { class: `pill ${isOk ? 'good' : status.code === 'CANCELLED' ? 'cancelled' : 'bad'}` }, status.code),
      h('span', { class: 'fact' }, duration(seconds)),
      h('span', { class: 'fact' }, many(this.count, 'message')),
    );
    const parts = [];
    if (status.message) parts.push(h('pre', { class: isOk ? 'said' : 'said bad', tabindex: '0', 'aria-label': 'Message of the status' }, status.message));
    for (const detail of status.details ?? []) {
      const { '@type': type, ...fields } = detail;
      parts.push(h('section', { class: 'detail' }, h('h3', {}, (type ?? '').split('/').pop() || 'Detail'), h('pre', { tabindex: '0' }, highlighted(JSON.stringify(fields, null, 2)))));
    }
    parts.push(metadata('Headers', this.headers), metadata('Trailers', trailing));
    this.rest.replaceChildren(...parts.filter(Boolean));
    this.headers = undefined;
    announce(`${status.code}, ${many(this.count, 'message')}`);
  }

  problem(message) {
    clearInterval(this.timer);
    this.head.replaceChildren(h('span', { class: 'pill bad' }, 'Not called'));
    this.rest.replaceChildren(h('pre', { class: 'said bad', role: 'alert' }, message));
  }
}

function isAtEnd(element) {
  return element.scrollHeight - element.scrollTop - element.clientHeight < 40;
}

function metadata(title, pairs) {
  if (!pairs?.length) return null;
  const rows = pairs.map(([key, value]) => h('tr', {}, h('th', { scope: 'row' }, key), h('td', {}, value)));
  return h('details', { class: 'metadata' }, h('summary', {}, title, h('span', { class: 'badge' }, pairs.length)), h('table', {}, h('tbody', {}, ...rows)));
}

export function duration(seconds) {
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(seconds < 0.1 ? 2 : 3))} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

export function many(number, thing) {
  return `${number.toLocaleString('en')} ${thing}${number === 1 ? '' : 's'}`;
}
