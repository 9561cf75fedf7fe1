// The whole life of a key through the client that openapi-ts makes from the
// description: it must compile against the generated types and find every answer
// as they say. Every operation is called.
import assert from 'node:assert/strict';

import { createClient } from './client/client/index.js';
import * as sdk from './client/sdk.gen.js';

const environment = (name: string): string => process.env[name] ?? assert.fail(`${name} is not set`);
const as = (auth: string) => createClient({ baseUrl: environment('KEYGATE_ADMIN_URL'), auth, throwOnError: true });

const client = as(environment('KEYGATE_ADMIN_KEY'));
const uncalled = new Set(Object.keys(sdk));
const api = new Proxy({ ...sdk }, {
  get(target, name, receiver) {
    uncalled.delete(String(name));
    return Reflect.get(target, name, receiver);
  },
});

// good calls what must succeed, refused what must not.
type Options = { client: typeof client; throwOnError: true };
const good: Options = { client, throwOnError: true };
const refused = { client, throwOnError: false as const };
const wait = { wait: 'replicas' as const };

const me = (await api.getCaller(good)).data;
assert.equal(me.operator, true);

const plans = (await api.listPlans(good)).data.items;
assert.ok(plans.some((p) => p.name === 'pro' && p.limits.length > 0));
assert.ok((await api.listRoles(good)).data.items.some((r) => r.name === 'owner' && r.expanded.includes('keygate:keys-write')));
assert.ok((await api.listPermissions(good)).data.items.some((p) => p.name === 'read:all' && p.implies?.includes('*:read')));
const replicas = (await api.listReplicas(good)).data.items;
assert.ok(replicas.length > 0 && !Number.isNaN(Date.parse(replicas[0]!.started_at)));

// An organization on a plan, a space, an account with a role.
const made = await api.createOrganization({ ...good, body: { slug: 'acme', name: 'Acme Inc.', plan: 'pro' }, query: wait });
const organization = made.data;
assert.equal(made.response.status, 201);
assert.deepEqual(organization.replicas?.map((r) => r.confirmed), replicas.map(() => true));
assert.equal((await api.getOrganization({ ...good, path: { ref: 'acme' } })).data.id, organization.id);
assert.equal((await api.editOrganization({ ...good, path: { ref: 'acme' }, body: { name: 'Acme', overrides: { max_keys: 3 } } })).data.overrides?.max_keys, 3);
assert.ok((await api.listOrganizations({ ...good, query: { limit: 200 } })).data.items.some((o) => o.slug === 'acme'));

const space = (await api.createSpace({ ...good, body: { organization: 'acme', slug: 'research' } })).data;
const inAcme = { organization: 'acme' };
assert.equal((await api.getSpace({ ...good, path: { ref: 'research' }, query: inAcme })).data.id, space.id);
assert.equal((await api.editSpace({ ...good, path: { ref: space.id }, query: inAcme, body: { name: 'Research' } })).data.name, 'Research');
assert.equal((await api.listSpaces({ ...good, query: inAcme })).data.items.length, 1);

const account = (await api.createAccount({ ...good, body: { name: 'Ada', organization: 'acme', role: 'owner' } })).data;
assert.equal((await api.editAccount({ ...good, path: { id: account.id }, body: { email: 'ada@example.com' } })).data.email, 'ada@example.com');
const grant = (await api.addGrant({ ...good, path: { id: account.id }, body: { permission: 'keygate:audit' } })).data;
assert.ok((await api.getAccount({ ...good, path: { id: account.id } })).data.grants.some((g) => g.id === grant.id));
assert.equal((await api.removeGrant({ ...good, path: { id: account.id, grant: grant.id } })).response.status, 204);
assert.equal((await api.listAccounts({ ...good, query: inAcme })).data.items.length, 2);

// A key, twice asked for and once made.
const request = {
  ...good, headers: { 'Idempotency-Key': 'first key' },
  body: { name: 'billing', account: account.id, space: 'research', permissions: ['read:all'], allowed_cidrs: ['127.0.0.0/8'], expires: '30d' },
};
const created = await api.createKey(request);
const key = created.data;
assert.ok(key.secret && key.status === 'active' && key.space === space.id && key.expires_at);
const again = (await api.createKey(request)).data;
assert.deepEqual([again.id, again.secret, again.replayed], [key.id, undefined, true]);
const path = { id: key.id };

// A version that is not the present one is refused; the present one is told.
const tag = created.response.headers.get('ETag') ?? assert.fail('no ETag');
const edited = await api.editKey({ ...good, path, headers: { 'If-Match': tag }, body: { description: 'Reads invoices.' } });
assert.equal(edited.data.description, 'Reads invoices.');
const stale = await api.editKey({ ...refused, path, headers: { 'If-Match': tag }, body: { name: 'x' } });
assert.equal(stale.error?.error, 'Changed meanwhile');
assert.equal(stale.response?.headers.get('ETag'), edited.response.headers.get('ETag'));
assert.equal((await api.getKey({ ...good, path })).data.name, 'billing');

// What it may do, and why not.
const tested = (await api.testKey({ ...good, path, body: { permission: 'keygate:members', method: 'GET', path: '/things' } })).data;
assert.deepEqual([tested.works, tested.permission?.held, tested.request?.key], [true, false, key.id]);
assert.equal((await api.testKey({ ...good, path, body: {} })).data.works, true);
const explained = (await api.explain({ ...good, body: { method: 'GET', path: '/things', key: key.secret } })).data;
assert.ok(explained.checks.some((c) => c.name === 'key' && c.result === 'pass'));
const lacking = await api.listKeys({ ...refused, client: as(key.secret!) });
assert.equal(lacking.error?.error, 'Insufficient permissions');
assert.equal(lacking.response?.status, 403);

// Rotation, pause, resume, revocation.
const rotated = (await api.rotateKey({ ...good, path, body: { overlap: '24h' } })).data;
assert.ok(rotated.secret !== key.secret && rotated.former_secret?.last_four === key.last_four);
assert.ok((await api.rotateKey({ ...good, path })).data.secret, 'the body is optional');
assert.equal((await api.pauseKey({ ...good, path, query: wait })).data.status, 'paused');
assert.equal((await api.listKeys({ ...good, query: { organization: 'acme', status: 'paused', q: 'BILL' } })).data.items.length, 1);
assert.equal((await api.resumeKey({ ...good, path })).data.status, 'active');
assert.equal((await api.revokeKey({ ...good, path })).data.status, 'revoked');
const late = await api.resumeKey({ ...refused, path });
assert.deepEqual([late.response?.status, late.error?.error], [409, 'Conflict']);

// An import and its export, page by page.
const hashes = Array.from({ length: 3 }, (_, i) => String(i).repeat(64));
const imported = (await api.importKeys({
  ...good,
  body: { form: { prefix: 'sk_old_', min: 20, max: 60 }, keys: [...hashes, 'no hash'].map((hash, i) => ({ name: `old ${i}`, organization: 'acme', hash })) },
})).data;
assert.deepEqual([imported.imported, imported.failed, imported.items[3]?.errors?.[0]?.field], [3, 1, 'hash']);
const exported: string[] = [];
for (let cursor: string | undefined; ;) {
  const page = (await api.exportKeys({ ...good, query: { organization: 'acme', limit: 2, cursor } })).data;
  exported.push(...page.items.map((k) => k.hash));
  if (!(cursor = page.next)) break;
}
assert.ok(hashes.every((h) => exported.includes(h)));

// The audit log, as pages and as lines.
const actions = (await api.listAudit({ ...good, query: { target: key.id } })).data.items.map((e) => e.action);
assert.deepEqual(actions, ['key.revoke', 'key.resume', 'key.pause', 'key.rotate', 'key.rotate', 'key.edit', 'key.create']);
const lines = (await api.exportAudit({ ...good, query: { target: key.id }, parseAs: 'text' })).data;
assert.deepEqual(lines.trimEnd().split('\n').map((l) => JSON.parse(l).action), actions);

// All of it goes again.
const wrong = await api.createKey({ ...refused, body: { name: '', plan: 'gold', permissions: ['no:such'] } });
assert.deepEqual(wrong.error?.errors?.map((e) => e.pointer).sort(), ['#/name', '#/permissions/0', '#/plan']);
for (const id of [key.id, ...imported.items.flatMap((i) => i.id ?? [])]) await api.deleteKey({ ...good, path: { id } });
const gone = await api.deleteSpace({ ...good, path: { ref: 'research' }, query: { ...inAcme, ...wait } });
assert.ok(gone.response.status === 200 && gone.data?.replicas?.length);
await api.deleteAccount({ ...good, path: { id: account.id } });
await api.deleteOrganization({ ...good, path: { ref: 'acme' } });
assert.equal((await api.getOrganization({ ...refused, path: { ref: 'acme' } })).response?.status, 404);

assert.deepEqual([...uncalled], [], 'operations that were not called');
console.log(`${Object.keys(sdk).length} operations of the generated client work`);
