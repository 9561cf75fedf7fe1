// Sends requests that it makes from the description of the management API and
// holds every answer to that description.
//
//   KEYGATE_ADMIN_URL=… KEYGATE_ADMIN_KEY=… node fuzz.mjs [--runs N] [--seed N] [--only OPERATION]… [--lanes N] [--all]
//
// With --all it goes on after ten findings and does not look for the smallest
// request that shows one. It prints its seed. What exists when a request is made
// depends on the order of answers, so that the same seed makes the same requests
// but for the ids in them; a finding is printed as the command that repeats it.
import fc from 'fast-check';
import http from 'node:http';
import { parseArgs } from 'node:util';

import { readDocument } from './document.mjs';
import { compose, requestOf } from './requests.mjs';
import { World } from './world.mjs';

const base = process.env.KEYGATE_ADMIN_URL;
const { values: options } = parseArgs({
  options: {
    runs: { type: 'string', default: '60' },
    seed: { type: 'string' },
    only: { type: 'string', multiple: true },
    lanes: { type: 'string', default: '12' },
    all: { type: 'boolean' },
  },
});
const runs = Number(options.runs); // of each operation
const seed = Number(options.seed ?? Math.floor(Math.random() * 2 ** 31));
const lanes = Number(options.lanes); // requests at a time
const batch = 15; // requests of one operation in a row
const patience = 60_000; // ms until an answer that does not come is a finding
// Each key has 50 requests a second. So many are enough for any machine to be
// busy; what is refused all the same is sent again.
const operators = 20;
const tenants = 4; // organizations with a key that may do all that is theirs

const agent = new http.Agent({ keepAlive: true, maxSockets: 2 * operators });
const world = new World();
const findings = [];
const seen = new Map(); // operation -> status -> number
let sent = 0;

function send({ method, target, headers, body, chunked }) {
  return new Promise((resolve, reject) => {
    const request = http.request(base + target, { method, headers, agent, timeout: patience, path: target }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }));
    });
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', reject);
    sent++;
    // Of itself Node sends no length with GET and DELETE.
    if (body !== undefined && !chunked) request.setHeader('Content-Length', Buffer.byteLength(body));
    if (body !== undefined && chunked) request.setHeader('Transfer-Encoding', 'chunked');
    request.end(body);
  });
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// ask sends what must succeed.
async function ask(key, method, target, value) {
  for (;;) {
    const answer = await send({ method, target, headers: { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' }, body: value && JSON.stringify(value) });
    if (answer.status === 429) {
      await pause(1000 * Number(answer.headers['retry-after']));
      continue;
    }
    if (answer.status >= 300) throw new Error(`${method} ${target}: ${answer.status} ${answer.body}`);
    return JSON.parse(answer.body);
  }
}

function curl(request) {
  const quote = (s) => `'${String(s).replaceAll("'", "'\\''")}'`;
  const words = ['curl', '-i', '-X', request.method, quote(base + request.target)];
  for (const [name, value] of Object.entries(request.headers)) words.push('-H', quote(`${name}: ${name === 'Authorization' ? '…' : value}`));
  if (request.body !== undefined) words.push('--data-binary', quote(String(request.body).slice(0, 2000)));
  return `${words.join(' ')}   # ${request.credential.as}`;
}

let turn = 0;
function authorize(request, keys) {
  const { as, secret, value } = request.credential;
  if (as === 'operator') request.headers.Authorization = `Bearer ${keys[turn++ % keys.length]}`;
  if (as === 'tenant') request.headers.Authorization = `Bearer ${secret}`;
  if (as === 'nobody' && value) request.headers.Authorization = value;
}

// try sends a request and returns what is wrong with its answer.
async function attempt(document, op, request, keys) {
  for (;;) {
    authorize(request, keys);
    let answer;
    try {
      answer = await send(request);
    } catch (err) {
      return [`no answer: ${err.message}`];
    }
    const wrong = document.judge(op, answer);
    const counts = seen.get(op.id);
    counts.set(answer.status, (counts.get(answer.status) ?? 0) + 1);
    if (answer.status === 429 && !wrong.length && request.credential.as === 'operator') {
      await pause(1000 * Number(answer.headers['retry-after']));
      continue;
    }
    if (!wrong.length) world.learn(op, request, answer);
    return [...wrong, ...tooKind(op, request, answer)].map((w) => `${w}\n    ${answer.status} ${answer.body.toString().slice(0, 600)}`);
  }
}

// tooKind finds what the description forbids and the answer accepts.
function tooKind(op, request, answer) {
  if (answer.status >= 300) return [];
  const wrong = [];
  if (request.clean) {
    const invalid = op.acceptsBody(JSON.parse(request.body));
    if (invalid) wrong.push(`a body was accepted that the schema forbids: ${invalid}`);
  }
  for (const [name, value] of request.query) {
    const p = op.parameters.find((q) => q.name === name);
    const typed = p.schema.type === 'integer' && /^-?\d+$/.test(value) ? Number(value) : value;
    const invalid = value === '' ? '' : op.acceptsParameter.get(name)(typed);
    if (invalid) wrong.push(`a parameter ${name} was accepted that the schema forbids: ${invalid}`);
  }
  for (const { name } of op.parameters.filter((p) => p.in === 'header' && request.headers[p.name] !== undefined)) {
    const invalid = op.acceptsParameter.get(name)(request.headers[name]);
    if (invalid) wrong.push(`a header ${name} was accepted that the schema forbids: ${invalid}`);
  }
  return wrong;
}

async function property(document, op, gentle, n, numRuns, keys) {
  let last = '';
  const check = fc.asyncProperty(requestOf(op, gentle), async (made) => {
    const request = compose(op, made, world);
    const wrong = await attempt(document, op, request, keys);
    if (wrong.length) last = `${op.id}: ${wrong.join('\n  ')}\n    ${curl(request)}`;
    return wrong.length === 0;
  });
  const result = await fc.check(check, { seed: seed + n, numRuns, interruptAfterTimeLimit: patience, endOnFailure: options.all });
  if (result.failed) findings.push(last || `${op.id}: ${result.errorInstance?.stack}`);
}

async function inLanes(tasks) {
  const next = tasks.values();
  await Promise.all(Array.from({ length: lanes }, async () => {
    for (const task of next) if (options.all || findings.length < 10) await task();
  }));
}

// prepare makes the keys that requests are sent with. They belong to the
// instance's own account, which the run hides from itself.
async function prepare() {
  const first = process.env.KEYGATE_ADMIN_KEY;
  const me = await ask(first, 'GET', '/v1/me');
  const keys = [];
  world.hide(me.id, me.account);
  for (let i = 0; i < operators; i++) {
    const made = await ask(first, 'POST', '/v1/keys', { name: `fuzzer ${i}`, account: me.account, permissions: ['keygate:operator'] });
    world.hide(made.id);
    keys.push(made.secret);
  }
  for (let i = 0; i < tenants; i++) {
    const organization = await ask(first, 'POST', '/v1/organizations', { slug: `tenant-${seed}-${i}`, plan: 'enterprise' });
    const made = await ask(first, 'POST', '/v1/keys', { name: `tenant ${i}`, organization: organization.id, permissions: ['admin'] });
    world.hide(made.id, made.account);
    world.tenant.push(made.secret);
  }
  const grants = (await ask(first, 'GET', `/v1/accounts/${me.account}`)).grants;
  world.hide(...grants.map((g) => g.id));
  return keys;
}

// exceed spends the budget of one key, to see what is answered then.
async function exceed(document, key) {
  const op = document.operations.find((o) => o.id === 'get-caller');
  const request = () => ({ method: 'GET', target: op.path, query: [], headers: {}, credential: { as: 'tenant', secret: key } });
  for (let tries = 0; tries < 20 && !seen.get(op.id).has(429); tries++) {
    const wrong = (await Promise.all(Array.from({ length: 2 * operators }, () => attempt(document, op, request(), [])))).flat();
    if (wrong.length) return findings.push(`${op.id}: ${wrong[0]}`);
  }
  if (!seen.get(op.id).has(429)) findings.push('the budget of a key has no end');
}

// other methods and paths than the described ones are refused.
async function elsewhere(document, key) {
  const paths = Object.keys(document.document.paths);
  const described = (path, method) => document.operations.some((op) => op.method === method && new RegExp(`^${op.path.replace(/\{\w+\}/g, '[^/]+')}$`).test(path));
  for (const path of [...paths, '/v1', '/v1/', '/v2/keys', '/v1/keys/', '/v1//keys', '/v1/./keys', '/v1/KEYS']) {
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND']) {
      if (described(path, method)) continue;
      const answer = await send({ method, target: path.replace(/\{\w+\}/g, 'x'), headers: { Authorization: `Bearer ${key}` } });
      const want = paths.includes(path) ? 405 : 404;
      const problem = answer.headers['content-type'] === 'application/problem+json' && JSON.parse(answer.body).status === want;
      if (answer.status !== want || !problem || (want === 405) !== ('allow' in answer.headers)) {
        findings.push(`${method} ${path}: ${answer.status} ${answer.body}, want ${want}`);
      }
    }
  }
}

// removed deletes an organization that nothing belongs to: in a short run none of
// those that are drawn may be empty.
async function removed(document, keys) {
  const op = document.operations.find((o) => o.id === 'delete-organization');
  const { id } = await ask(keys[0], 'POST', '/v1/organizations', { slug: `empty-${seed}`, plan: 'enterprise' });
  const request = { method: 'DELETE', target: `/v1/organizations/${id}`, query: [], headers: {}, credential: { as: 'operator' } };
  const wrong = await attempt(document, op, request, keys);
  if (wrong.length) findings.push(`${op.id}: ${wrong.join('\n  ')}\n    ${curl(request)}`);
}

async function main() {
  console.log(`seed ${seed}, ${runs} requests of each operation`);
  const keys = await prepare();
  const document = readDocument(JSON.parse((await send({ method: 'GET', target: '/v1/openapi.json', headers: {} })).body));
  const operations = document.operations.filter((o) => !options.only || options.only.includes(o.id));
  for (const op of document.operations) seen.set(op.id, new Map());

  // What others need comes first, in the order in which they need it.
  let n = 0;
  const firsts = ['list-permissions', 'list-roles', 'list-plans', 'create-organization', 'create-space', 'create-account', 'add-grant', 'create-key'];
  for (const id of firsts) {
    const op = document.operations.find((o) => o.id === id);
    await property(document, op, true, n++, op.schema ? 15 : 1, keys);
  }
  const tasks = [];
  for (let done = 0; done < runs; done += batch) {
    for (const op of operations) {
      const gentle = done % (4 * batch) === 0;
      const few = !op.parameters.length && !op.schema; // little to vary
      if (few && done > 0) continue;
      const number = n++;
      tasks.push(() => property(document, op, gentle, number, Math.min(batch, runs - done), keys));
    }
  }
  await inLanes(tasks);
  if (!options.only) {
    await exceed(document, keys[0]);
    await elsewhere(document, keys[1]);
    await removed(document, keys);
    for (const op of operations) {
      if (![...seen.get(op.id).keys()].some((s) => s < 300)) findings.push(`${op.id}: no request succeeded, so that its answer was not seen`);
    }
  }
  report(operations);
}

function report(operations) {
  const total = new Map();
  for (const op of operations) {
    const counts = [...seen.get(op.id)].sort(([a], [b]) => a - b);
    for (const [status, count] of counts) total.set(status, (total.get(status) ?? 0) + count);
    console.log(`  ${op.id.padEnd(20)} ${counts.map(([status, count]) => `${status}×${count}`).join(' ')}`);
  }
  const all = [...total].sort(([a], [b]) => a - b).map(([status, count]) => `${status}×${count}`).join(' ');
  console.log(`${operations.length} operations, ${sent} requests, ${findings.length} findings: ${all}`);
  for (const finding of findings) console.log(`\nFINDING ${finding}`);
  process.exitCode = findings.length ? 1 : 0;
  agent.destroy();
}

await main();
