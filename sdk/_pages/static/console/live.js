// The state of the cluster and the calls of the last seconds, refreshed while they are shown.

import { h, sparkline } from './dom.js';
import { many } from './response.js';

const EVERY_MS = 2000;
const POINTS = 40;
const GOOD = new Set(['RUNNING', 'HEALTHY', 'serving']);

export class LiveView {
  constructor(server) {
    this.server = server;
    this.rates = new Map();
    this.body = h('div', { class: 'live' }, h('p', { class: 'blank' }, 'Asking for the state …'));
    this.element = h('section', { class: 'page' }, h('header', { class: 'page-head' }, h('h1', {}, 'Live'), this.where = h('p', { class: 'type' })), this.body);
  }

  show() {
    this.isShown = true;
    this.refresh();
    return this.element;
  }

  hide() {
    this.isShown = false;
    clearTimeout(this.timer);
  }

  async refresh() {
    try {
      this.render(await this.server.cluster());
    } catch (error) {
      this.body.replaceChildren(h('p', { class: 'said bad', role: 'alert' }, error.message));
    }
    if (this.isShown && !document.hidden) this.timer = setTimeout(() => this.refresh(), EVERY_MS);
    else if (this.isShown) document.addEventListener('visibilitychange', () => this.isShown && this.refresh(), { once: true });
  }

  render({ cluster, status, calls, problems }) {
    this.where.textContent = cluster;
    const parts = (problems ?? []).filter(Boolean).map((problem) => h('p', { class: 'said note' }, problem));
    if (status) parts.push(this.cards(status, calls), ...this.applications(status), ...this.proxies(status));
    if (calls) parts.push(...this.calls(calls));
    else if (status && !problems?.length) parts.push(h('h2', {}, 'Calls'), h('p', { class: 'empty' }, 'Counting calls …'));
    this.body.replaceChildren(...parts);
  }

  cards(status, calls) {
    const total = sum(calls?.methods ?? [], (each) => each.calls_per_s);
    const errors = sum(calls?.methods ?? [], (each) => sum(Object.values(each.errors_per_s), Number)) + sum(calls?.rejected ?? [], (each) => each.calls_per_s);
    const replicas = sum(status.applications.flatMap((each) => each.deployments), (each) => each.replicas);
    return h('dl', { class: 'cards' },
      card('State', status.healthy ? 'Healthy' : 'Not healthy', status.healthy ? 'good' : 'bad'),
      card('Calls/s', calls ? rate(total) : '–', '', calls && this.spark('all', total, 'Calls a second')),
      card('Errors/s', calls ? rate(errors) : '–', errors > 0 ? 'bad' : '', calls && this.spark('errors', errors, 'Errors a second')),
      card('Replicas', String(replicas)),
      card('Proxies', String(status.proxies.length)),
      card('Routing table', String(status.version), 'long'));
  }

  spark(key, value, label) {
    const values = [...(this.rates.get(key) ?? []), value].slice(-POINTS);
    this.rates.set(key, values);
    return sparkline(values.length > 1 ? values : [value, value], label);
  }

  applications(status) {
    const rows = status.applications.flatMap((application) => {
      const first = application.deployments.length ? application.deployments : [null];
      return first.map((deployment, i) => h('tr', {},
        i ? h('td', {}) : h('th', { scope: 'row' }, application.name, state(application.state) || null),
        h('td', {}, deployment?.name ?? ''),
        h('td', {}, (deployment && state(deployment.state)) || 'routed'),
        h('td', { class: 'num' }, deployment ? replicas(deployment) : ''),
        h('td', { class: 'mono' }, deployment?.services.join(', ') || h('span', { class: 'type' }, 'reached by handles'))));
    });
    const messages = status.applications.flatMap((each) => [each.message, ...each.deployments.map((deployment) => deployment.message)]).filter(Boolean);
    return [h('h2', {}, 'Applications'),
      rows.length ? table(['Application', 'Deployment', 'State', 'Replicas', 'Services'], rows) : h('p', { class: 'empty' }, 'No application is deployed.'),
      ...messages.map((message) => h('pre', { class: 'said note', tabindex: '0' }, message))];
  }

  proxies(status) {
    const rows = status.proxies.map((proxy) => h('tr', {},
      h('th', { scope: 'row', class: 'mono' }, proxy.address), h('td', { class: 'mono', title: proxy.node_id }, proxy.node_id.slice(0, 8)),
      h('td', {}, state(proxy.problem || (proxy.up_to_date ? 'serving' : 'updating'))),
      h('td', { class: 'num' }, proxy.up_to_date ? String(proxy.version) : `${proxy.version} of ${status.version}`),
      h('td', { class: 'num' }, proxy.envoy_pid || '–')));
    if (status.problem) rows.push(h('tr', {}, h('td', { colspan: '5' }, status.problem)));
    return [h('h2', {}, 'Proxies'), rows.length ? table(['Address', 'Node', 'State', 'Version', 'Envoy'], rows) : h('p', { class: 'empty' }, 'The ingress does not run.')];
  }

  calls({ methods, replicas: each, rejected, seconds, unreachable, left_out: others }) {
    const columns = ['Calls/s', '', 'p50', 'p99', 'Ongoing', 'Queued', 'Errors/s'];
    const cells = (key, figures) => [
      h('td', { class: 'num' }, rate(figures.calls_per_s)), h('td', {}, this.spark(key, figures.calls_per_s, `Calls a second of ${key}`)),
      h('td', { class: 'num' }, milliseconds(figures.p50_ms)), h('td', { class: 'num' }, milliseconds(figures.p99_ms)),
      h('td', { class: 'num' }, figures.ongoing ?? '–'), h('td', { class: 'num' }, figures.queued ?? '–'), h('td', { class: 'errors' }, errors(figures.errors_per_s))];
    const parts = [h('h2', {}, 'Calls', h('span', { class: 'type' }, `of the last ${Math.round(seconds)} s on all nodes`))];
    for (const [address, reason] of Object.entries(unreachable ?? {})) parts.push(h('p', { class: 'said note' }, `No metrics of ${address}: ${reason}`));
    parts.push(methods.length ? table(['Method', 'Application', ...columns], methods.map((figures) => h('tr', {},
      h('th', { scope: 'row', class: 'mono' }, figures.method.replace(/^\//, '')), h('td', {}, figures.application), ...cells(`${figures.application} ${figures.method}`, figures)))) : h('p', { class: 'empty' }, 'No client has called.'));
    if (each.length) {
      parts.push(h('h2', {}, 'Replicas'), table(['Replica', 'Application', ...columns], each.map((figures) => h('tr', {},
        h('th', { scope: 'row', class: 'mono' }, `${figures.deployment}/${figures.replica}`), h('td', {}, figures.application), ...cells(`${figures.application} ${figures.replica}`, figures)))));
      if (others) parts.push(h('p', { class: 'type' }, `${many(others, 'less busy replica')} not shown: sdk top shows all.`));
    }
    if (rejected.length) {
      parts.push(h('h2', {}, 'No replica answered'), table(['Reason', 'Status', 'Calls/s'], rejected.map((figures) => h('tr', {},
        h('th', { scope: 'row' }, figures.reason), h('td', { class: 'mono' }, figures.status_code), h('td', { class: 'num' }, rate(figures.calls_per_s))))));
    }
    return parts;
  }
}

function card(name, value, kind = '', extra = null) {
  return h('div', { class: `card ${kind}` }, h('dt', {}, name), h('dd', {}, value, extra || null));
}

function state(text) {
  return text && h('span', { class: `state ${GOOD.has(text) ? 'good' : 'warn'}` }, text);
}

function replicas(deployment) {
  if (deployment.scaled_to_zero) return '0, wakes on a call';
  const routed = deployment.endpoints.length ?? deployment.endpoints; // the ingress sends their number
  return deployment.services.length && routed !== deployment.replicas ? `${routed} of ${deployment.replicas} routed` : String(deployment.replicas);
}

function table(columns, rows) {
  const isNumber = (name) => ['Replicas', 'Version', 'Envoy', 'Calls/s', 'p50', 'p99', 'Ongoing', 'Queued'].includes(name);
  return h('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': `${columns[0]}: ${many(rows.length, 'row')}` }, h('table', { class: 'figures' },
    h('thead', {}, h('tr', {}, ...columns.map((name) => h('th', { scope: 'col', class: isNumber(name) ? 'num' : '' }, name)))), h('tbody', {}, ...rows)));
}

function errors(rates) {
  return Object.entries(rates).map(([code, value]) => `${code} ${rate(value)}`).join(', ');
}

function rate(value) {
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(1);
}

function milliseconds(value) {
  return value === null || value === undefined ? '–' : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function sum(values, of) {
  return values.reduce((total, value) => total + of(value), 0);
}
