// The page of documentation: Swagger UI with the document of this ingress. Swagger UI comes as a global, SwaggerUIBundle.
const form = document.getElementById('bar');
const problem = document.getElementById('problem');
const credentials = document.getElementById('credentials');
const chosen = new URLSearchParams(location.search).get('application') ?? '';

// Headers of every request: the application that was chosen, and the credentials that were given.
function headers() {
  const found = {};
  const application = form.elements.application.value || chosen;
  if (application) found.application = application;
  if (form.elements.token.value) found.authorization = `Bearer ${form.elements.token.value}`;
  if (form.elements.key.value) found['x-api-key'] = form.elements.key.value;
  return found;
}

function report(text, { asks = false } = {}) {
  form.hidden = false;
  problem.hidden = !text;
  problem.textContent = text;
  credentials.hidden = !asks;
}

async function load() {
  let response;
  try {
    response = await fetch('/openapi.json', { headers: headers() });
  } catch {
    report('The ingress does not answer. Is it running? Reload this page when it is.');
    return;
  }
  const body = await response.json().catch(() => ({}));
  if (response.status === 401 || response.status === 403) {
    const who = response.status === 401 ? 'Only clients with credentials may read it' : 'These credentials may not read it';
    report(`${who}: ${body.message ?? response.statusText}`, { asks: true });
    return;
  }
  if (!response.ok) {
    report(`The document can't be read: ${body.message ?? `${response.status} ${response.statusText}`}`);
    return;
  }
  form.hidden = document.getElementById('applications').hidden;
  problem.hidden = credentials.hidden = true;
  if (!Object.keys(body.paths ?? {}).length) report('No application serves a method yet. Reload this page when one does.');
  document.title = body.info.title;
  globalThis.SwaggerUIBundle({
    spec: body,
    dom_id: '#ui',
    deepLinking: true,
    operationsSorter: 'alpha', // the document has no order
    displayRequestDuration: true,
    presets: [globalThis.SwaggerUIBundle.presets.apis],
    requestInterceptor: (request) => Object.assign(request, { headers: { ...request.headers, ...headers() } }),
    validatorUrl: null, // it would send the document elsewhere
  });
}

// A call needs the name of its application if there are several.
async function listApplications() {
  const response = await fetch('/ray.serve.RayServeAPIService/ListApplications', {
    method: 'POST',
    headers: { ...headers(), 'content-type': 'application/json' },
    body: '{}',
  }).catch(() => null);
  const names = response?.ok ? (await response.json()).applicationNames ?? [] : [];
  if (names.length < 2) return;
  const select = form.elements.application;
  const all = new Option('all', '');
  select.replaceChildren(all, ...names.map((name) => new Option(name, name, false, name === chosen)));
  select.value = names.includes(chosen) ? chosen : '';
  document.getElementById('applications').hidden = false;
  form.hidden = false;
}

form.elements.application.addEventListener('change', () => {
  location.search = new URLSearchParams({ application: form.elements.application.value });
});
form.addEventListener('submit', (event) => {
  event.preventDefault();
  listApplications().then(load);
});
await listApplications();
await load();
