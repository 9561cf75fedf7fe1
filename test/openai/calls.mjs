// Calls an imitated chat completions API through a running keygate with OpenAI's
// own client, as those do who only change its base URL and key. What the client
// must see is asserted here; what it saw is printed as JSON for ../openai_test.go,
// which knows what the gateway and the API behind it saw.
//
// Where a call must wait for something, it asks the API directly, on its side
// channel: no wait depends on how fast anything is.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import OpenAI, {
  APIUserAbortError, AuthenticationError, BadRequestError, InternalServerError, NotFoundError, PermissionDeniedError,
  RateLimitError, toFile,
} from 'openai';

const { gateway, side, management, admin, keys, rounds } = JSON.parse(process.env.KEYGATE_TEST_CALLS);

// tries are the HTTP requests of all clients, retries among them.
const tries = [];

function client(key, options = {}) {
  return new OpenAI({
    apiKey: key,
    baseURL: gateway + '/v1',
    maxRetries: 0,
    ...options,
    fetch: async (url, init) => {
      const began = performance.now();
      const res = await fetch(url, init);
      tries.push({ key, began, ended: performance.now(), status: res.status, wait: res.headers.get('retry-after') });
      return res;
    },
  });
}

// aside talks to the API past the gateway.
async function aside(path) {
  const res = await fetch(side + path, { method: 'POST' });
  assert.equal(res.status, 200, `${path}: ${await res.text()}`);
}

const messages = [{ role: 'user', content: 'Say hello.' }];
const ask = (user, more) => ({ model: 'imitation', messages, user, ...more });

// fails wants a call to fail with an error of this class, and returns it.
async function fails(kind, call) {
  const err = await call.then((value) => assert.fail(`succeeded with ${JSON.stringify(value)}`), (err) => err);
  assert.ok(err instanceof kind, `want ${kind.name}, got ${err.constructor.name}: ${err.stack}`);
  return err;
}

const caller = client(keys.caller);

async function plain() {
  const { data, response, request_id } = await caller.chat.completions.create(ask('plain')).withResponse();
  assert.equal(data.choices[0].message.content, 'Say hello.');
  assert.equal(request_id, response.headers.get('x-request-id'));
  assert.equal(data._request_id, request_id);
  const models = [];
  for await (const model of caller.models.list()) models.push(model.id);
  assert.deepEqual(models, ['imitation', 'imitation-large']);
  return request_id;
}

async function upload() {
  const content = randomBytes(1 << 20);
  const file = await caller.files.create({ file: await toFile(content, 'training.jsonl'), purpose: 'fine-tune' });
  assert.equal(file.bytes, content.length);
  assert.equal(file.filename, 'training.jsonl');
  assert.equal(file.purpose, 'fine-tune');
  assert.equal(file.sha256, createHash('sha256').update(content).digest('hex'));
}

// The API sends no chunk before the client has acknowledged the one before: one
// that was held back on the way would hold up the stream for good.
async function stream(user) {
  const chunks = await caller.chat.completions.create(ask(user, { stream: true }));
  const words = [];
  for await (const chunk of chunks) {
    words.push(chunk.choices[0].delta.content);
    await aside(`/side/acknowledge?user=${user}`);
  }
  assert.deepEqual(words, ['one', 'two', 'three', 'four']);
}

// The API learns that nobody listens any more.
async function abort(user) {
  const chunks = await caller.chat.completions.create(ask(user, { stream: true }));
  for await (const chunk of chunks) {
    assert.equal(chunk.choices[0].delta.content, 'one');
    chunks.controller.abort();
  }
  await aside(`/side/cancelled?user=${user}`);
}

// The same before the answer began.
async function abortBefore(user) {
  const controller = new AbortController();
  const call = caller.chat.completions.create(ask(user, { stream: true }), { signal: controller.signal });
  const failed = fails(APIUserAbortError, call);
  await aside(`/side/arrived?user=${user}`);
  controller.abort();
  await failed;
  await aside(`/side/cancelled?user=${user}`);
}

// broken wants a stream to end with an error after its first chunk, whatever end
// does then: a client that took it for complete would answer with half a sentence.
async function broken(openai, user, end) {
  const chunks = await openai.chat.completions.create(ask(user, { stream: true }));
  const words = [];
  await assert.rejects(async () => {
    for await (const chunk of chunks) {
      words.push(chunk.choices[0].delta.content);
      await end();
    }
  }, (err) => !(err instanceof assert.AssertionError));
  assert.deepEqual(words, ['one']);
}

async function manage(path) {
  const res = await fetch(management + path, { method: 'POST', headers: { authorization: `Bearer ${admin}` } });
  assert.equal(res.status, 200, await res.text());
}

// The client waits as long as it is told and is let in: its callers notice nothing.
async function retries() {
  const openai = client(keys.second, { maxRetries: 20 });
  const answers = await Promise.all(
    Array.from({ length: rounds.retried }, (_, i) => openai.chat.completions.create(ask(`retried-${i}`))),
  );
  for (const answer of answers) assert.equal(answer.choices[0].message.content, 'Say hello.');
  const own = tries.filter((t) => t.key === keys.second);
  const refused = own.filter((t) => t.status === 429);
  assert.equal(own.length - refused.length, rounds.retried, 'all tries but those refused were answered');
  assert.ok(own.every((t) => t.status === 200 || t.status === 429), JSON.stringify(own));
  assert.ok(refused.length >= rounds.retried - 1, 'each call but the first was refused at least once');
  for (const r of refused) {
    assert.ok(Number(r.wait) >= 1, `Retry-After: ${r.wait}`);
    // Without Retry-After the first wait would be half a second at most.
    assert.ok(
      own.some((t) => t !== r && t.began >= r.ended + 0.9 * 1000 * Number(r.wait)),
      `nobody waited as long as Retry-After said: ${JSON.stringify(own)}`,
    );
  }
  return { tries: own.length, refused: refused.length };
}

// What users of the client see of each refusal: its class, the status, the body's
// "error" in the message, and the request id to look for in the gateway's log.
async function refusals() {
  await client(keys.hour).chat.completions.create(ask('hour'));
  const complete = (key) => () => client(key).chat.completions.create(ask('refused'));
  const seen = [];
  for (const [kind, status, message, call] of [
    [AuthenticationError, 401, 'API key is invalid', complete(keys.unknown)],
    [AuthenticationError, 401, 'API key is invalid', complete('sk-proj-of-somebody-else')],
    [AuthenticationError, 401, 'API key is paused', complete(keys.paused)],
    [PermissionDeniedError, 403, 'Insufficient permissions', complete(keys.weak)],
    [RateLimitError, 429, 'Rate limit exceeded', complete(keys.hour)],
    [NotFoundError, 404, 'Not found', () => caller.embeddings.create({ model: 'imitation', input: 'hello' })],
    [BadRequestError, 400, 'Ambiguous path', () => caller.get('/models/..%2fchat')],
    [InternalServerError, 502, 'Upstream unavailable', () => caller.images.generate({ prompt: 'a gate' })],
  ]) {
    const err = await fails(kind, call());
    assert.equal(err.status, status);
    assert.equal(err.message, `${status} ${JSON.stringify(message)}`);
    assert.equal(err.error, message);
    assert.match(err.requestID, /^[0-9a-f-]{36}$/);
    assert.equal(err.headers.get('content-type'), 'application/problem+json');
    if (status === 401) assert.match(err.headers.get('www-authenticate'), /^Bearer /);
    if (status === 429) assert.match(err.headers.get('retry-after'), /^\d+$/);
    seen.push({ status, id: err.requestID });
  }
  return seen;
}

// parallel runs n calls, up to 8 at a time.
async function parallel(n, call) {
  let next = 0;
  await Promise.all(Array.from({ length: Math.min(8, n) }, async () => {
    while (next < n) await call(next++);
  }));
}

const [request, , retried, refused] = await Promise.all([plain(), upload(), retries(), refusals()]);
await parallel(rounds.streams, (i) => stream(`stream-${i}`));
await parallel(rounds.aborts, (i) => abort(`abort-${i}`));
await parallel(rounds.aborts, (i) => abortBefore(`silent-${i}`));
await broken(caller, 'broken', () => aside('/side/break?user=broken'));
await broken(client(keys.revoked.secret), 'revoked', () => manage(`/v1/keys/${keys.revoked.id}/revoke`));
console.log(JSON.stringify({ request, retried, refused }));
