// Requests made from the description: valid ones, ones that are a little wrong,
// and ones that are no requests at all.
import fc from 'fast-check';
import { gzipSync } from 'node:zlib';

// A reference stands for something that exists when the request is sent.
class Ref {
  constructor(kind, field, n) { Object.assign(this, { kind, field, n }); }
}

const ref = (kind, field = 'id') => fc.nat(40).map((n) => new Ref(kind, field, n));
const some = (...values) => fc.constantFrom(...values);
const sometimes = (weight, arbitrary) => fc.oneof({ weight: 10 - weight, arbitrary: fc.constant(undefined) }, { weight, arbitrary });
const often = (likely, other) => fc.oneof({ weight: 6, arbitrary: likely }, { weight: 1, arbitrary: other });

const place = (kind) => fc.oneof(ref(kind), ref(kind, 'slug'));
const permission = fc.oneof(ref('permission', ''), some('read:all', 'keygate:keys-read', '*', '*:read', 'database:*', 'keygate:operator', 'nothing:here'));

// Values by the name of a field or parameter: what is random passes no check of
// the domain and gets no further than its first line. Those in the second place
// have the form of good ones and are none.
const meanings = {
  account: [ref('account')],
  action: [some('key.create', 'key.revoke', 'account.edit')],
  actor: [fc.oneof(ref('key'), ref('account'), some('system'))],
  address: [some('192.0.2.7', '2001:db8::1'), some('::ffff:10.0.0.1', 'fe80::1%eth0', '192.0.2.7:80', '0192.0.2.7')],
  allowed_cidrs: [fc.array(some('192.0.2.0/24', '10.1.2.3', '::/0', '2001:db8::/32'), { maxLength: 3 }), some(['192.0.2.7/24'], ['::1/129'], [''])],
  created_at: [some('2024-02-29T12:00:00Z', '2025-01-01T00:00:00.123456789+05:30'), some('1969-12-31T23:59:59Z', '9999-12-31T23:59:59Z')],
  cursor: [ref('cursor', '')],
  email: [some('ada@example.com'), some('x@localhost', 'nobody', 'a@b@c')],
  expires: [some('never', '1d', '30d', '1y', '2031-05-01', '2031-05-01T10:00:00+02:00'), some('2001-01-01', '0d', '99999999d', '-1d', '2031-02-30')],
  expires_days: [some(1, 30, 36500)],
  grant: [ref('grant')],
  hash: [fc.string({ unit: some(...'0123456789abcdef'), minLength: 64, maxLength: 64 })],
  host: [some('api.example.com', 'localhost:8080', '[::1]')],
  key: [fc.oneof(ref('secret', ''), some('kg_live_' + 'a'.repeat(36)))],
  key_id: [ref('key')],
  last_four: [some('9aF2')],
  max: [some(40, 512), some(16, 0, -1)], min: [some(16, 40), some(512, 1 << 30)], max_keys: [some(-1, 100), some(0, 1, -2)],
  method: [some('GET', 'POST', 'DELETE', 'PROPFIND', 'OPTIONS'), some('get', 'CONNECT', 'A B')],
  name: [fc.nat(1e9).map((n) => `n${n}`), fc.oneof(fc.string({ minLength: 1, maxLength: 40 }), ref('key', 'name'), some('minute', 'day'))],
  organization: [place('organization')],
  overlap: [some('0', '24h', '7d', '30d'), some('31d', '90s', '1ns', '-1h')],
  path: [some('/', '/orders/7?a=b', '/orgs/acme/orders', '/spaces/s-1/orders', '/any', '/status', '/.keygate/me', '/é'), some('/../x', '//', '/a%2fb', '/%zz', '*', 'http://elsewhere/x', 'x')],
  per: [some('1s', '1m', '24h', '1h30m'), some('0s', '2562047h', '1ns', '-1m')],
  permission: [some('read:all', 'keygate:keys-read', 'write:all'), permission],
  permissions: [fc.array(some('read:all', 'keygate:keys-read', 'write:all'), { maxLength: 3 }), fc.array(permission, { maxLength: 4 })],
  plan: [ref('plan', ''), some('', 'gold')],
  prefix: [some('sk_live_', 'sk_test_'), some('kg_live', 'abc')],
  q: [some('n1', 'N')],
  requests: [some(1, 100, 1e6), some(2 ** 53, 0, -1)],
  role: [ref('role', ''), some('nobody')],
  since: [some('2020-01-01T00:00:00Z'), some('2030-01-01T00:00:00.5+01:00')],
  slug: [fc.nat(1e9).map((n) => `s-${n}`), place('organization')],
  space: [place('space')],
  target: [fc.oneof(ref('key'), ref('account'), ref('space'))],
  until: [some('2030-01-01T00:00:00Z'), some('2020-01-01T00:00:00Z')],
};

const nested = (depth) => { let v = {}; for (let i = 0; i < depth; i++) v = i % 2 ? [v] : { a: v }; return v; };

// What programs trip over.
const nastyText = some(
  '', ' ', '\0', 'a\0b', '\r\nX-Injected: yes', '\t', '\x7f', '\u0085', '\u202egpj', '\ufeff', '\ud800', 'e\u0301', '\u{1f511}', 'İ', 'ß', 'ａｃｍｅ', 'null', 'true', '0', '-1', '1e9', '../../etc/passwd',
  '..', '.', '/', '//', '%', '%00', '%2e%2e', '%2F', "' OR 1=1 --", '"; DROP TABLE keys; --', '{{7*7}}', '${jndi:x}', '<script>', '*', '{kg}', '[1]', '__proto__', 'constructor',
  'default', 'me', 'key_', 'org_01980c5e6f117d0aa3b47c1e92d5f806', 'KEY_01980c5e7d2a7c3f9b1e4d6a8f0c2b35', 'x'.repeat(101), 'x'.repeat(300), 'é'.repeat(600), 'x'.repeat(5000),
);
const nastyValue = fc.oneof(
  nastyText,
  some(null, true, false, 0, -0, 1, -1, 1.5, 1e308, 2 ** 31, 2 ** 53, 2 ** 63, -(2 ** 63), 1e-320, [], {}, [null], [[]], [{}], [1], { a: 1 }, nested(3), nested(60), nested(2000)),
  fc.array(fc.constant('a'), { minLength: 100, maxLength: 1200 }),
  fc.jsonValue({ maxDepth: 3 }),
);

// valueOf makes what a schema allows.
function valueOf(op, schema, gentle, name = '') {
  const s = op.resolve(schema);
  if (s.enum) return some(...s.enum);
  const types = [s.type].flat();
  if (types.length > 1) return often(valueOf(op, { ...s, type: types[0] }, gentle, name), fc.constant(null));
  if (s.type === 'object') return objectOf(op, s, gentle);
  const meaning = meanings[name];
  if (meaning && (s.type !== 'array' || s.items.type === 'string')) return gentle ? meaning[0] : often(meaning[0], fc.oneof(plain(s), ...meaning.slice(1)));
  if (s.type === 'array') return fc.array(valueOf(op, s.items, gentle), { maxLength: Math.min(4, s.maxItems ?? 4) });
  return plain(s);
}

function plain(s) {
  switch (s.type) {
    case 'array': return fc.array(fc.string(), { maxLength: 3 });
    case 'boolean': return fc.boolean();
    case 'integer': return fc.integer({ min: s.minimum ?? -100, max: s.maximum ?? 1e6 });
    case 'string':
      if (s.format === 'date-time') return fc.date({ noInvalidDate: true, min: new Date('1900-01-01'), max: new Date('2200-01-01') }).map((d) => d.toISOString());
      return fc.string({ maxLength: Math.min(s.maxLength ?? 60, 60), minLength: s.minLength ?? 0 });
  }
  throw new Error(`nothing makes a ${JSON.stringify(s)}`);
}

function objectOf(op, s, gentle) {
  if (!s.properties) return fc.dictionary(some('X-Organization', 'X-Space', 'Host', 'a'), valueOf(op, s.additionalProperties, gentle), { maxKeys: 3 });
  const fields = Object.entries(s.properties).map(([name, p]) => {
    const value = valueOf(op, p, gentle, name);
    return [name, s.required?.includes(name) ? value : sometimes(name === 'organization' ? 7 : 3, value)];
  });
  return fc.record(Object.fromEntries(fields)).map((o) => Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined)));
}

const mutation = fc.record({ how: some('replace', 'replace', 'replace', 'remove', 'rename', 'add', 'repeat'), at: fc.nat(1000), value: nastyValue, name: fc.oneof(nastyText, some('id', 'status', 'NAME', 'secret')) });

const rawBody = fc.oneof(
  some('', ' \n', '{', '}', '[]', 'null', '"x"', '1', 'true', '{"a":1}{"b":2}', '\ufeff{}', '{} x', '{"name":1e999}', '{"name":"a","name":"b"}', '{"NAME":"x"}', "{'name':'x'}", '{"name":"\\ud800"}',
    '{"name":01}', '{,}', '{"":""}', '['.repeat(20000), '{"a":'.repeat(11000), '{"a":'.repeat(5000) + '1' + '}'.repeat(5000), `{"name":"${'x'.repeat(1 << 20)}"}`, ' '.repeat((1 << 20) - 2) + '{}'),
  some(Buffer.from([0xff, 0xfe, 0x7b, 0]), Buffer.from('{"name":"\xff"}', 'latin1'), gzipSync('{"name":"x"}'), Buffer.from('{"name":"a\0"}')),
  fc.uint8Array({ maxLength: 200 }).map((b) => Buffer.from(b)),
);

const contentType = some(
  undefined, 'application/json; charset=utf-8', 'Application/JSON', 'application/json;', 'application/json; charset=utf-16', 'application/json;;', 'application/problem+json', 'application/merge-patch+json',
  'text/plain', 'text/json', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', '/', 'json', '*/*', '',
);

const headerText = fc.oneof(nastyText, fc.string({ maxLength: 300 })).map((s) => s.replace(/[^\t\x20-\x7e\x80-\xff]/g, '').trim());

const headers = fc.record({
  'Idempotency-Key': often(some('first', 'second', 'third', 'a b "c"'), headerText),
  'If-Match': fc.oneof(ref('etag', ''), some('*', '"1"', '"2"', 'W/"1"', '', 'x', '"1", "2"', '"99999999999999999999"', '"-1"', '"1'), headerText),
  Accept: some('*/*', 'application/json', 'application/problem+json', 'text/html', 'application/xml;q=0.9', 'application/cbor', '', 'x'),
  'Accept-Encoding': some('gzip', 'br, *;q=0', 'x'),
  'X-Request-Id': headerText, Origin: some('https://elsewhere.example', 'null'), 'Content-Encoding': some('gzip', 'identity'),
}, { requiredKeys: [] });

const credential = fc.oneof(
  { weight: 30, arbitrary: fc.constant({ as: 'operator' }) },
  { weight: 8, arbitrary: fc.oneof(ref('secret', ''), ref('tenant', ''), ref('tenant', '')).map((secret) => ({ as: 'tenant', secret })) },
  { weight: 1, arbitrary: some('', 'Bearer', 'Bearer x', 'Bearer kg_live_x', `Bearer kg_live_${'a'.repeat(36)}`, 'Basic YTpi', 'Bearer a b', 'bearer\tx', 'Bearer é').map((value) => ({ as: 'nobody', value })) },
);

const strangeQuery = some('x=1', 'limit=1&limit=2', 'cursor=%zz', '%zz=1', 'a;b', '&&&', '=', 'limit=', 'limit=1e3', 'limit=%31', 'wait', 'wait=replicas', 'wait=never', 'organization=%00', 'q=%ff', 'api_key=kg_live_x', `q=${'x'.repeat(4000)}`, 'since=0000-00-00', 'since=2026-01-01T00:00:00+01:00');

// requestOf makes requests of an operation. Gentle ones are valid, as far as its
// schema tells.
export function requestOf(op, gentle) {
  const rarely = (arbitrary) => (gentle ? fc.constant(undefined) : sometimes(1, arbitrary));
  const of = (where) => op.parameters.filter((p) => p.in === where);
  const query = (p) => [p.name, sometimes(p.name === 'organization' ? 7 : 2, gentle ? valueOf(op, p.schema, true, p.name) : often(valueOf(op, p.schema, false, p.name), nastyText))];
  const path = (p) => [p.name, gentle ? pathOf(op, p) : often(pathOf(op, p), nastyText)];
  return fc.record({
    n: fc.nat(40), coherent: often(fc.constant(true), fc.constant(false)),
    credential: gentle ? fc.constant({ as: 'operator' }) : credential,
    path: fc.record(Object.fromEntries(of('path').map(path))),
    query: fc.record(Object.fromEntries(of('query').map(query))),
    strangeQuery: rarely(strangeQuery),
    headers: gentle ? fc.constant({}) : often(fc.constant({}), headers),
    body: op.schema ? valueOf(op, op.schema, gentle) : fc.constant(undefined),
    mutations: gentle ? fc.constant([]) : fc.oneof(fc.constant([]), fc.array(mutation, { minLength: 1, maxLength: 3 })),
    rawBody: rarely(rawBody),
    contentType: rarely(contentType),
    chunked: rarely(fc.constant(true)),
  });
}

function pathOf(op, p) {
  const kind = { keys: 'key', accounts: 'account', organizations: 'organization', spaces: 'space' }[op.path.split('/')[2]];
  if (p.name === 'grant') return ref('grant');
  return p.name === 'ref' ? place(kind) : ref(kind);
}

// compose turns what was generated into what is sent, now that the world is
// known. clean says that the body is what its JSON says it is.
export function compose(op, made, world) {
  const focus = world.focus(made.n);
  const resolve = (v) => {
    if (v instanceof Ref) {
      const found = (made.coherent && focus[v.kind]) || world.pick(v.kind, v.n);
      const value = v.field && found ? found[v.field] : found;
      return value ?? `no-${v.kind}-yet`;
    }
    if (Array.isArray(v)) return v.map(resolve);
    if (v === null || typeof v !== 'object') return v;
    return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, resolve(x)]));
  };
  if (made.coherent && made.path.grant instanceof Ref && focus.grant) { // a grant is found at its account only
    focus.account = { id: focus.grant.account };
  }
  const path = op.path.replace(/\{(\w+)\}/g, (_, name) => segment(resolve(made.path[name])));
  const query = Object.entries(resolve(made.query)).filter(([, v]) => v !== undefined);
  const parts = query.map(([name, value]) => `${name}=${encode(value)}`);
  if (made.strangeQuery) parts.push(made.strangeQuery);
  const request = { method: op.method, chunked: made.chunked, target: path + (parts.length ? '?' + parts.join('&') : ''), headers: { ...resolve(made.headers) }, query, credential: resolve({ ...made.credential }) };
  if (op.schema) {
    request.value = made.mutations.reduce(mutate, resolve(made.body));
    request.body = made.rawBody ?? JSON.stringify(request.value);
    request.headers['Content-Type'] = made.contentType ?? 'application/json';
    if (made.rawBody === undefined && made.contentType === undefined) request.clean = true;
  } else if (made.rawBody !== undefined) {
    request.body = made.rawBody;
  }
  return request;
}

const encode = (value) => encodeURIComponent(String(value).toWellFormed());

// segment is never one that another operation is named by.
function segment(value) {
  const out = encode(value);
  return out === 'export' || out === 'import' ? `${out}-` : out;
}

// mutate changes a value at one of its places.
function mutate(root, m) {
  const box = { root };
  const places = [[box, 'root']];
  for (let i = 0; i < places.length; i++) {
    const v = places[i][0][places[i][1]];
    if (v !== null && typeof v === 'object' && places.length < 500) for (const k of Object.keys(v)) places.push([v, k]);
  }
  const [holder, key] = places[m.at % places.length];
  const set = (o, k, v) => Object.defineProperty(o, k, { value: v, enumerable: true, configurable: true, writable: true });
  const value = JSON.parse(JSON.stringify(m.value)); // a later mutation must not change what others are made from
  switch (m.how) {
    case 'replace': set(holder, key, value); break;
    case 'remove': if (holder !== box) delete holder[key]; break;
    case 'rename': if (holder !== box && !Array.isArray(holder)) { set(holder, m.name, holder[key]); delete holder[key]; } break;
    case 'add': { const v = holder[key]; if (v !== null && typeof v === 'object' && !Array.isArray(v)) set(v, m.name, value); break; }
    case 'repeat': { const v = holder[key]; if (Array.isArray(v)) v.push(...v, ...v); break; }
  }
  return box.root;
}
