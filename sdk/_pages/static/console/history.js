// The calls that were made in this browser. Credentials are not kept.

import { h } from './dom.js';
import { duration } from './response.js';
import { splitName } from './schema.js';
import { isSecret } from './snippets.js';

const KEY = 'sdk.console.history';
const MOST = 100;
const LONGEST = 100_000;

export class History {
  constructor(storage = localStorage) {
    this.storage = storage;
  }

  all() {
    try {
      const found = JSON.parse(this.storage.getItem(KEY) ?? '[]');
      return Array.isArray(found) ? found : [];
    } catch {
      return [];
    }
  }

  add(entry) {
    const metadata = entry.metadata.map(([key, value]) => [key, isSecret(key) ? '' : value]);
    const messages = entry.messages.join('').length > LONGEST ? [] : entry.messages;
    const kept = [{ ...entry, metadata, messages }, ...this.all()].slice(0, MOST);
    try {
      this.storage.setItem(KEY, JSON.stringify(kept));
    } catch { // the browser has no more room
      this.storage.setItem(KEY, JSON.stringify(kept.slice(0, 10)));
    }
  }

  clear() {
    this.storage.removeItem(KEY);
  }
}

export function historyRow(entry, open) {
  const [service, method] = entry.path.split('/');
  const isOk = entry.status === 'OK';
  return h('li', {}, h('button', { class: 'past', type: 'button', on: { click: () => open(entry) } },
    h('span', { class: `dot ${isOk ? 'good' : entry.status === 'CANCELLED' ? 'cancelled' : 'bad'}`, title: entry.status }),
    h('span', { class: 'past-name' }, h('b', {}, method), h('span', { class: 'type' }, splitName(service)[1], entry.application && ` · ${entry.application}`)),
    h('code', { class: 'past-data' }, entry.messages.join(' ').replace(/\s+/g, ' ').slice(0, 160)),
    h('span', { class: 'past-end' }, isOk ? duration(entry.seconds) : entry.status),
    h('time', { datetime: new Date(entry.at).toISOString() }, ago(entry.at))));
}

export function historyView(history, target, open) {
  const entries = history.all().filter((entry) => entry.target === target);
  const page = h('section', { class: 'page' }, h('header', { class: 'page-head' }, h('h1', {}, 'History')));
  if (!entries.length) {
    page.append(h('div', { class: 'blank' }, h('p', {}, 'No calls yet.'), h('p', {}, 'Calls that you make here are kept in this browser, without credentials.')));
    return page;
  }
  page.firstChild.append(h('button', {
    class: 'quiet', type: 'button', on: {
      click: () => {
        history.clear();
        page.replaceWith(historyView(history, target, open));
      },
    },
  }, 'Clear'));
  page.append(h('ol', { class: 'past-list' }, ...entries.map((entry) => historyRow(entry, open))));
  return page;
}

function ago(at) {
  const seconds = Math.max(0, (Date.now() - at) / 1000);
  if (seconds < 60) return 'now';
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(at).toLocaleDateString();
}
