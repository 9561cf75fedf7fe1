// What a run has met so far: requests that are to mean something need ids of
// things that exist.

const most = 60; // of each kind: old ones are gone, or everywhere the same

export class World {
  key = []; account = []; organization = []; space = []; grant = []; secret = []; cursor = []; etag = [];
  role = []; permission = []; plan = [];
  tenant = []; // secrets of keys that manage an organization of their own
  #hidden = new Set();

  // hide keeps an id out: what the run itself stands on must not be changed by it.
  hide(...ids) { for (const id of ids) this.#hidden.add(id); }

  #add(kind, value, same) {
    const list = this[kind];
    const at = list.findIndex(same);
    if (at >= 0) list.splice(at, 1);
    list.push(value);
    if (list.length > most) list.shift();
  }

  // learn takes what an answer tells.
  learn(op, request, answer) {
    if (answer.status >= 300) return;
    if (request.method === 'DELETE') this.#forget(request.target);
    const etag = answer.headers.etag;
    if (etag) this.#add('etag', etag, (e) => e === etag);
    if (answer.headers['content-type'] !== 'application/json') return;
    const body = JSON.parse(answer.body);
    if (body.next) this.#add('cursor', body.next, () => false);
    if (body.secret) this.#add('secret', body.secret, () => false);
    for (const item of body.items ?? [body]) this.#meet(item, request);
    for (const kind of ['role', 'permission', 'plan']) {
      if (op.id === `list-${kind}s`) this[kind] = body.items.map((i) => i.name);
    }
  }

  // forget keeps most of what is gone away: a few requests for it are enough.
  #forget(target) {
    const [, , collection, ref, , grant] = target.split(/[/?]/);
    const kind = grant ? 'grant' : collection.slice(0, -1);
    const gone = decodeURIComponent(grant ?? ref);
    const at = this[kind].findIndex((x) => x.id === gone || x.slug === gone);
    if (at >= 0) this[kind].splice(at, 1);
  }

  #meet(item, request) {
    const kind = { key_: 'key', acc_: 'account', org_: 'organization', spc_: 'space', grt_: 'grant' }[item.id?.slice(0, 4)];
    if (!kind || this.#hidden.has(item.id)) return;
    const known = { id: item.id, slug: item.slug, name: item.name, organization: item.organization, space: item.space, account: item.account };
    if (kind === 'grant') known.account = /\/accounts\/([^/]+)/.exec(request.target)?.[1];
    for (const g of item.grants ?? []) this.#meet(g, { target: `/accounts/${item.id}` });
    this.#add(kind, known, (k) => k.id === item.id);
  }

  // pick chooses one thing, or undefined where there is none yet.
  pick(kind, n) { return this[kind].at(-1 - (n % (this[kind].length || 1))); }

  // focus chooses things that belong together: an organization, a space and an
  // account of it, a key of that account.
  focus(n) {
    const space = this.pick('space', n);
    const organization = space?.organization ?? this.pick('organization', n)?.id;
    const of = (kind) => this[kind].filter((x) => x.organization === organization);
    const some = (list) => list.at(-1 - (n % (list.length || 1)));
    return { space, organization: this.organization.find((o) => o.id === organization), account: some(of('account')), key: some(of('key')), grant: this.pick('grant', n) };
  }
}
