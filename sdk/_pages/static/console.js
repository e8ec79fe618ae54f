// The console: the services of a server, a form to call each method, the history of calls, and live figures.
import { announce, h, icon, prose } from './console/dom.js';
import { History, historyRow, historyView } from './console/history.js';
import { LiveView } from './console/live.js';
import { MethodView } from './console/method.js';
import { many } from './console/response.js';
import { Types, cardinalityOf, splitName } from './console/schema.js';
import { Server, takeToken } from './console/server.js';

const byId = (id) => document.getElementById(id);
const main = byId('main');
const tree = byId('tree');
const search = byId('search');
const server = new Server();
const past = new History();
const live = new LiveView(server);
// Views of methods by their address, so that what was typed is there when one comes back.
const views = new Map();
let applications = [];
let problem = '';
let current = null;

// -- addresses: #/method/APPLICATION/SERVICE/METHOD, #/live, #/history, #/ ------------------------

function addressOf(application, path) {
  return `#/method/${encodeURIComponent(application)}/${path}`;
}

function methodAt(address) {
  const [, name, service, method] = /^#\/method\/([^/]*)\/([^/]+)\/([^/]+)$/.exec(address) ?? [];
  if (!method) return null;
  const application = applications.find((each) => each.name === decodeURIComponent(name));
  const known = application?.services.find((each) => each.name === service);
  const found = known?.methods.find((each) => each.name === method);
  return found ? { application: application.name, service: known, method: found, types: application.types } : null;
}

function show() {
  const address = location.hash || '#/';
  live.hide();
  current = null;
  const found = methodAt(address);
  const view = address === '#/live' ? 'live' : address === '#/history' ? 'history' : 'methods';
  for (const link of document.querySelectorAll('.views a')) {
    if (link.dataset.view === view) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  for (const link of tree.querySelectorAll('a')) {
    if (link.getAttribute('href') === address) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (view === 'live') main.replaceChildren(live.show());
  else if (view === 'history') main.replaceChildren(historyView(past, server.target, openPast));
  else if (found) {
    if (!views.has(address)) views.set(address, new MethodView(server, past, found));
    current = views.get(address);
    current.showSnippet();
    main.replaceChildren(current.element);
  } else main.replaceChildren(welcome(address));
  document.title = found ? `${found.method.name} · Console` : `${{ live: 'Live', history: 'History', methods: server.target }[view]} · Console`;
  main.scrollTop = 0;
}

function openPast(entry) {
  const address = addressOf(entry.application, entry.path);
  const found = methodAt(address);
  if (!found) {
    announce('This method does not exist any more');
    return;
  }
  if (!views.has(address)) views.set(address, new MethodView(server, past, found));
  views.get(address).restore(entry);
  if (location.hash === address) show();
  else location.hash = address;
}

// -- the services ---------------------------------------------------------------------------------

async function load() {
  problem = '';
  byId('reload').disabled = true;
  try {
    applications = (await server.load()).map((each) => ({ ...each, types: new Types(each.types ?? []) }));
  } catch (error) {
    applications = [];
    problem = error.message;
    if (error.status === 401 || error.status === 403) askCredentials(server.isConsole || error.message.includes('token is missing') ? '' : error.message);
  }
  byId('reload').disabled = false;
  views.clear();
  byId('target').textContent = server.target;
  showTree();
  show();
}

function showTree() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (...texts) => words.every((word) => texts.some((text) => text.toLowerCase().includes(word)));
  const groups = applications.map((application) => {
    const services = application.services.map((service) => {
      const methods = service.methods.filter((method) => matches(application.name, service.name, method.name, method.comment));
      return methods.length ? serviceItem(application, service, methods) : null;
    }).filter(Boolean);
    const problems = words.length ? [] : Object.entries(application.problems ?? {}).map(([name, text]) => h('p', { class: 'problem' }, `${name}: ${text}`));
    if (!services.length && !problems.length) return null;
    return h('section', { class: 'group' }, application.name && h('h2', { class: 'group-name', title: 'application' }, application.name), ...services, ...problems);
  }).filter(Boolean);
  tree.replaceChildren(...groups);
  if (!groups.length) tree.append(h('p', { class: 'blank' }, words.length ? 'No method matches.' : problem ? '' : 'No services.'));
  for (const link of tree.querySelectorAll('a')) if (link.getAttribute('href') === location.hash) link.setAttribute('aria-current', 'page');
}

const ARROWS = { unary: '', 'server stream': '↓', 'client stream': '↑', 'bidi stream': '↕' };

function serviceItem(application, service, methods) {
  const [place, name] = splitName(service.name);
  return h('details', { class: 'service', open: true },
    h('summary', { title: service.name }, h('b', {}, name), h('span', { class: 'type' }, place)),
    h('ul', {}, ...methods.map((method) => h('li', {}, h('a', { href: addressOf(application.name, method.path), title: method.comment || method.path },
      h('span', { class: method.deprecated ? 'gone' : '' }, method.name),
      ARROWS[cardinalityOf(method)] && h('span', { class: `way kind-${cardinalityOf(method).replace(' ', '-')}`, title: cardinalityOf(method) }, h('span', { 'aria-hidden': 'true' }, ARROWS[cardinalityOf(method)]), h('span', { class: 'unseen' }, cardinalityOf(method))))))));
}

function welcome(address) {
  if (problem) {
    return h('section', { class: 'page' }, h('div', { class: 'trouble', role: 'alert' }, h('h1', {}, 'The services can’t be read'), h('p', {}, problem),
      h('button', { class: 'go', type: 'button', on: { click: load } }, 'Try again')));
  }
  const services = applications.flatMap((application) => application.services.map((service) => ({ application, service })));
  if (!services.length) {
    return h('section', { class: 'page' }, h('div', { class: 'trouble' }, h('h1', {}, 'No service yet'),
      h('p', {}, 'No application serves a gRPC service. Deploy one with ', h('code', {}, 'sdk run'), ', then reload.'),
      h('button', { class: 'go', type: 'button', on: { click: load } }, 'Reload')));
  }
  const methods = services.reduce((total, { service }) => total + service.methods.length, 0);
  const recent = past.all().filter((entry) => entry.target === server.target).slice(0, 5);
  return h('section', { class: 'page' },
    address !== '#/' && h('p', { class: 'said note' }, 'This method does not exist any more.'),
    h('header', { class: 'page-head' }, h('h1', {}, server.target), h('p', { class: 'type' }, `${many(services.length, 'service')}, ${many(methods, 'method')}`)),
    h('div', { class: 'tiles' }, ...services.map(({ application, service }) => tile(application, service))),
    recent.length > 0 && h('h2', {}, 'Recent calls'),
    recent.length > 0 && h('ol', { class: 'past-list' }, ...recent.map((entry) => historyRow(entry, openPast))));
}

function tile(application, service) {
  const [place, name] = splitName(service.name);
  return h('section', { class: 'tile' },
    h('h2', {}, name), h('p', { class: 'type' }, [application.name, place].filter(Boolean).join(' · ')),
    service.comment && prose(service.comment),
    h('ul', { class: 'plain' }, ...service.methods.map((method) => h('li', {}, h('a', { href: addressOf(application.name, method.path) }, method.name),
      method.comment && h('span', { class: 'type' }, method.comment.split('\n')[0])))));
}

// -- the bar --------------------------------------------------------------------------------------

const THEMES = ['auto', 'light', 'dark'];

function setTheme(theme) {
  if (theme === 'auto') document.documentElement.removeAttribute('data-theme');
  else document.documentElement.dataset.theme = theme;
  localStorage.setItem('sdk.console.theme', theme);
  const label = { auto: 'Colours of the system', light: 'Light colours', dark: 'Dark colours' }[theme];
  byId('theme').replaceChildren(icon({ auto: 'auto', light: 'sun', dark: 'moon' }[theme]));
  byId('theme').title = label;
  byId('theme').setAttribute('aria-label', label);
}

function askCredentials(text = '') {
  const dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'ask' }, h('form', { method: 'dialog' },
    h('h2', { id: 'ask' }, 'Credentials'),
    text && h('p', { class: 'said bad' }, text),
    h('p', { class: 'type' }, 'They are sent with every call, and forgotten when the page closes.'),
    h('label', {}, 'Token', h('input', { name: 'token', type: 'password', autocomplete: 'off', placeholder: 'authorization: Bearer …', value: server.credentials.token })),
    h('label', {}, 'API key', h('input', { name: 'key', type: 'password', autocomplete: 'off', placeholder: 'x-api-key', value: server.credentials.key })),
    h('div', { class: 'actions' }, h('button', { class: 'go', value: 'use' }, 'Use'), h('button', { class: 'second', value: '' }, 'Cancel'))));
  dialog.addEventListener('close', () => {
    const form = dialog.querySelector('form');
    if (dialog.returnValue === 'use') {
      server.credentials = { token: form.elements.token.value.trim(), key: form.elements.key.value.trim() };
      showCredentials();
      if (problem) load();
      else current?.showSnippet();
    }
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}

function showCredentials() {
  const isSet = server.identity.length > 0;
  const button = byId('credentials');
  button.replaceChildren(icon('key'));
  button.classList.toggle('on', isSet);
  button.title = isSet ? 'Credentials are sent' : 'Credentials';
  button.setAttribute('aria-label', button.title);
}

function showHelp() {
  const keys = [['/', 'Search the methods'], ['↑ ↓', 'Move in the list of methods'], ['Ctrl Enter', 'Call'], ['Esc', 'Cancel the call'], ['?', 'Show this']];
  const dialog = h('dialog', { class: 'dialog', 'aria-labelledby': 'keys' }, h('form', { method: 'dialog' }, h('h2', { id: 'keys' }, 'Keyboard'),
    h('dl', { class: 'shortcuts' }, ...keys.flatMap(([key, what]) => [h('dt', {}, ...key.split(' ').map((each) => h('kbd', {}, each))), h('dd', {}, what)])),
    h('div', { class: 'actions' }, h('button', { class: 'second' }, 'Close'))));
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function closeSide() {
  document.body.classList.remove('side-open');
  byId('menu').setAttribute('aria-expanded', 'false');
}

function move(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!by) return;
  const links = [...tree.querySelectorAll('a')].filter((link) => link.checkVisibility());
  const next = links[links.indexOf(document.activeElement) + by];
  event.preventDefault();
  if (next) next.focus();
  else if (by < 0) search.focus();
}

byId('menu').append(icon('menu'));
byId('help').append(icon('help'));
byId('menu').addEventListener('click', () => {
  const isOpen = document.body.classList.toggle('side-open');
  byId('menu').setAttribute('aria-expanded', String(isOpen));
  if (isOpen) search.focus();
});
byId('help').addEventListener('click', showHelp);
byId('credentials').addEventListener('click', () => askCredentials());
byId('reload').addEventListener('click', load);
byId('theme').addEventListener('click', () => {
  const theme = localStorage.getItem('sdk.console.theme') ?? 'auto';
  setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]);
});
search.addEventListener('input', showTree);
search.addEventListener('keydown', (event) => {
  if (event.key === 'Enter') tree.querySelector('a')?.click();
  else move(event);
});
tree.addEventListener('keydown', move);
document.addEventListener('keydown', (event) => {
  const isTyping = event.target.closest('input, textarea, select, dialog');
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    current?.start();
  } else if (event.key === 'Escape' && !event.target.closest('dialog')) {
    if (document.body.classList.contains('side-open')) closeSide();
    else current?.cancel();
  } else if (event.key === '/' && !isTyping) {
    event.preventDefault();
    document.body.classList.add('side-open');
    search.focus();
  } else if (event.key === '?' && !isTyping) showHelp();
});
globalThis.addEventListener('hashchange', () => {
  closeSide();
  show();
});

takeToken();
setTheme(localStorage.getItem('sdk.console.theme') ?? 'auto');
showCredentials();
await load();
