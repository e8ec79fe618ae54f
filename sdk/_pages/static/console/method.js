// One method: its request, its answer, and the same call for a terminal.

import { announce, copyButton, h, icon, prose, tabs } from './dom.js';
import { requestForm } from './editor.js';
import { ResponseView } from './response.js';
import { cardinalityOf, readJson, splitName, wellKnown } from './schema.js';
import { SNIPPETS } from './snippets.js';

export class MethodView {
  constructor(server, history, { application, service, method, types }) {
    Object.assign(this, { server, history, application, service, method, types });
    this.drafts = [new Draft(types, method.request)];
    this.active = 0;
    this.metadata = [];
    this.timeout = '';
    this.isJson = false;
    this.response = new ResponseView(method.serverStreaming);
    this.call = null;
    this.element = this.build();
    this.showBody();
    this.showSnippet();
  }

  // -- parts ----------------------------------------------------------------------------------

  build() {
    const { method, application, service } = this;
    this.body = h('div', { class: 'request-body' });
    this.chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Messages of the stream', hidden: !method.clientStreaming });
    this.form = tabs('Form of the request', ['Form', 'JSON'], (chosen) => {
      this.isJson = chosen === 1;
      this.showBody();
    });
    this.form.choose(0, true);
    this.go = h('button', { class: 'go', type: 'submit' });
    this.sendButton = h('button', { class: 'second', type: 'button', hidden: true, on: { click: () => this.send(true) } }, 'Send');
    this.finishButton = h('button', { class: 'second', type: 'button', hidden: true, on: { click: () => this.send(false) } }, 'End the stream');
    this.openBox = h('input', { type: 'checkbox' });
    this.problem = h('p', { class: 'problem', role: 'alert', hidden: true });
    this.showButton();
    const request = h('form', {
      class: 'pane request', 'aria-label': 'Request', novalidate: true, on: {
        submit: (event) => {
          event.preventDefault();
          this.call ? this.cancel() : this.start();
        },
      },
    },
    h('div', { class: 'pane-head' }, h('h2', {}, 'Request'), this.form.element,
      h('button', { class: 'quiet', type: 'button', title: 'Fill in every field', on: { click: () => this.fill() } }, 'Example')),
    this.chips, this.body,
    h('div', { class: 'options' }, this.metadataEditor(), this.deadlineInput()),
    this.problem,
    h('div', { class: 'actions' }, this.go, this.sendButton, this.finishButton,
      method.clientStreaming && this.server.isConsole && h('label', { class: 'check' }, this.openBox, 'Keep the stream open'),
      h('span', { class: 'keys', 'aria-hidden': 'true' }, h('kbd', {}, 'Ctrl'), ' ', h('kbd', {}, 'Enter'))),
    this.snippets());
    const [place, name] = splitName(service.name);
    return h('article', { class: 'method' },
      h('header', { class: 'method-head' },
        h('p', { class: 'crumbs' }, application && h('span', { class: 'application' }, application), h('span', {}, place && `${place}.`, h('b', {}, name))),
        h('h1', {}, method.name, h('span', { class: `kind kind-${cardinalityOf(method).replace(' ', '-')}` }, cardinalityOf(method)), method.deprecated && h('span', { class: 'kind gone' }, 'deprecated')),
        h('p', { class: 'signature' }, stream(method.clientStreaming), typeName(method.request), h('span', { class: 'arrow', 'aria-label': 'returns' }, ' → '), stream(method.serverStreaming), typeName(method.response)),
        method.comment && prose(method.comment)),
      h('div', { class: 'panes' }, request,
        this.response.element));
  }

  get draft() {
    return this.drafts[this.active];
  }

  showBody() {
    this.showChips();
    const draft = this.draft;
    if (!draft) {
      this.body.replaceChildren(h('p', { class: 'empty' }, 'The stream has no messages.'));
      return;
    }
    if (this.isJson) {
      const area = h('textarea', { class: 'json-input mono', rows: '12', spellcheck: 'false', 'aria-label': 'Request as JSON', value: draft.text, on: { input: () => { draft.text = area.value; fit(); this.changed(); } } });
      const fit = () => { area.rows = Math.min(30, Math.max(8, area.value.split('\n').length + 1)); };
      fit();
      this.body.replaceChildren(area);
    } else if (draft.problem) {
      this.body.replaceChildren(h('p', { class: 'problem' }, `The JSON can't be shown as a form: ${draft.problem}`));
    } else {
      this.body.replaceChildren(requestForm(this.types, this.method.request, draft.value, (value) => {
        draft.edited(value);
        this.changed();
      }));
    }
  }

  showChips() {
    if (!this.method.clientStreaming) return;
    this.chips.replaceChildren(
      ...this.drafts.map((_, i) => h('button', {
        type: 'button', class: 'chip', 'aria-pressed': String(i === this.active), 'aria-label': `Message ${i + 1}`, on: { click: () => this.choose(i) },
      }, i + 1)),
      h('button', { type: 'button', class: 'chip add', 'aria-label': 'Add a message', title: 'Add a message', on: { click: () => this.add() } }, icon('plus')),
      this.drafts.length > 0 && h('button', { type: 'button', class: 'quiet', on: { click: () => this.remove() } }, 'Remove'));
  }

  choose(i) {
    this.active = i;
    this.showBody();
    this.changed();
  }

  add() {
    this.drafts.push(new Draft(this.types, this.method.request, this.draft?.text));
    this.choose(this.drafts.length - 1);
  }

  remove() {
    this.drafts.splice(this.active, 1);
    this.choose(Math.max(0, this.active - 1));
  }

  fill() {
    if (!this.draft) this.drafts.push(new Draft(this.types, this.method.request));
    this.draft.text = JSON.stringify(this.types.exampleOf({ kind: 'message', type: this.method.request }, []) ?? {}, null, 2);
    this.showBody();
    this.changed();
  }

  metadataEditor() {
    const rows = h('div', { class: 'rows' });
    const badge = h('span', { class: 'badge', hidden: true });
    const render = () => {
      badge.hidden = !this.metadata.length;
      badge.textContent = this.metadata.length;
      rows.replaceChildren(...this.metadata.map((pair, i) => h('div', { class: 'pair' },
        h('input', { value: pair[0], placeholder: 'key', 'aria-label': `Key ${i + 1}`, spellcheck: 'false', on: { input: (event) => { pair[0] = event.target.value; this.changed(); } } }),
        h('input', { value: pair[1], placeholder: pair[0].endsWith('-bin') ? 'base64' : 'value', 'aria-label': `Value ${i + 1}`, spellcheck: 'false', autocomplete: 'off', on: { input: (event) => { pair[1] = event.target.value; this.changed(); } } }),
        h('button', { class: 'icon small', type: 'button', 'aria-label': `Remove metadata ${i + 1}`, on: { click: () => { this.metadata.splice(i, 1); render(); this.changed(); } } }, icon('close')))),
      h('button', { class: 'unset', type: 'button', on: { click: () => { this.metadata.push(['', '']); render(); rows.querySelector('.pair:last-of-type input').focus(); } } }, icon('plus'), 'Add'));
    };
    this.showMetadata = render;
    render();
    return h('details', { class: 'option' }, h('summary', {}, 'Metadata', badge), rows);
  }

  deadlineInput() {
    this.deadline = h('input', {
      class: 'number', inputmode: 'decimal', placeholder: 'none', 'aria-label': 'Deadline in seconds', on: {
        input: () => {
          this.timeout = this.deadline.value.trim();
          const isWrong = this.timeout && !(Number(this.timeout) > 0);
          this.deadline.setAttribute('aria-invalid', String(Boolean(isWrong)));
          this.changed();
        },
      },
    });
    return h('label', { class: 'option deadline' }, 'Deadline', this.deadline, h('span', { class: 'type' }, 's'));
  }

  snippets() {
    const names = Object.keys(SNIPPETS);
    this.snippet = names[0];
    this.code = h('pre', { class: 'snippet', tabindex: '0', 'aria-label': 'The same call' });
    const choice = tabs('Copy as', names, (i) => { this.snippet = names[i]; this.showSnippet(); });
    choice.choose(0, true);
    return h('details', { class: 'copy-as', open: true }, h('summary', {}, 'Copy as'),
      h('div', { class: 'copy-head' }, choice.element, copyButton('Copy the call', () => this.code.textContent)), this.code);
  }

  showSnippet() {
    this.code.textContent = SNIPPETS[this.snippet]({ ...this.request(), target: this.server.target, service: this.service, types: this.types });
  }

  changed() {
    this.problem.hidden = true;
    this.showSnippet();
  }

  showButton() {
    const runs = Boolean(this.call);
    this.go.classList.toggle('stops', runs);
    this.go.replaceChildren(icon(runs ? 'stop' : 'play'), runs ? 'Cancel' : 'Call');
    this.sendButton.hidden = this.finishButton.hidden = !(runs && this.call.canSend);
  }

  // -- the call -------------------------------------------------------------------------------

  request() {
    const pairs = this.metadata.filter(([key]) => key.trim()).map(([key, value]) => [key.trim().toLowerCase(), value]);
    return {
      application: this.application,
      method: this.method,
      messages: this.drafts.map((draft) => draft.text),
      metadata: [...this.server.identity, ...pairs],
      timeout: this.timeout ? Number(this.timeout) : null,
      open: this.method.clientStreaming && this.openBox.checked,
    };
  }

  complain(text) {
    this.problem.textContent = text;
    this.problem.hidden = false;
  }

  start() {
    if (this.call) return;
    const wrong = this.element.querySelector('.request [aria-invalid="true"]');
    if (wrong) {
      this.complain(wrong.title || 'A value is not what its field takes.');
      wrong.focus();
      return;
    }
    const broken = this.drafts.findIndex((draft) => draft.problem);
    if (broken >= 0) {
      this.active = broken;
      this.isJson = true;
      this.form.choose(1);
      this.complain(`${this.method.clientStreaming ? `Message ${broken + 1}` : 'The request'} is not JSON: ${this.drafts[broken].problem}`);
      return;
    }
    const request = this.request();
    this.response.begin();
    const call = this.server.start(request, (event) => {
      this.response.take(event);
      if (event.event === 'end') this.remember(request, event);
      if (this.call === call) this.showButton();
    });
    this.call = call;
    this.showButton();
    call.done.finally(() => {
      this.call = null;
      this.showButton();
    });
  }

  cancel() {
    this.call?.cancel();
  }

  // Send the message that is shown, or end the stream.
  async send(isMore) {
    try {
      await this.call?.send(isMore && this.draft ? [this.draft.text] : [], isMore);
      announce(isMore ? 'Sent' : 'The stream of requests has ended');
    } catch (error) {
      this.complain(error.message);
    }
    this.showButton();
  }

  remember(request, { status, seconds }) {
    this.history.add({
      at: Date.now(), target: this.server.target, application: this.application, path: this.method.path,
      messages: request.messages, metadata: this.metadata, timeout: this.timeout, status: status.code, seconds,
    });
  }

  restore(entry) {
    this.drafts = entry.messages.map((text) => new Draft(this.types, this.method.request, text));
    if (!this.drafts.length && !this.method.clientStreaming) this.drafts = [new Draft(this.types, this.method.request)];
    this.active = 0;
    this.metadata = entry.metadata.map((pair) => [...pair]);
    this.timeout = this.deadline.value = entry.timeout ?? '';
    this.showMetadata();
    this.showBody();
    this.changed();
  }
}

// A request message: the value that the form changes, and its JSON. The text that was typed is what is sent, since
// JavaScript's numbers are less precise than those of protobuf.
class Draft {
  constructor(types, type, text = '') {
    this.isObject = !wellKnown(type);
    this.value = types.freshMessage(type);
    this.problem = '';
    this.typed = null;
    if (text) this.text = text;
  }

  get text() {
    return this.typed ?? JSON.stringify(this.value, null, 2);
  }

  set text(text) {
    this.typed = text;
    this.problem = '';
    try {
      const value = readJson(text);
      if (this.isObject && (typeof value !== 'object' || value === null || Array.isArray(value))) this.problem = 'a message is an object, {…}';
      else this.value = value;
    } catch (error) {
      this.problem = error.message;
    }
  }

  edited(value) {
    this.value = value;
    this.typed = null;
    this.problem = '';
  }
}

function stream(streams) {
  return streams ? h('span', { class: 'stream' }, 'stream ') : '';
}

function typeName(name) {
  const [place, short] = splitName(name);
  return h('code', { title: name }, h('span', { class: 'type' }, place && `${place}.`), short);
}
