package storetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"keygate/internal/keys"
)

// use notes uses, which neither the feed nor the audit log tells.
func (w *world) use(uses ...keys.Use) {
	w.Helper()
	w.untouched("Used", func() {
		w.Helper()
		if err := w.s.Used(w.Context(), uses); err != nil {
			w.Fatalf("Used: %v", err)
		}
	})
}

// used: a key's last use is noted at most once in keys.UseEvery, for the key
// and for the secret that was presented, and moves no version.
func used(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	rotated := w.key(n.account)
	rotated.Secrets = []keys.Secret{w.secret("the new one"), w.secret("the old one")}
	made := w.create(w.key(n.account), rotated, w.key(n.account))
	plain, rotated, idle := made[0], made[1], made[2]
	at := func(after time.Duration) time.Time { return w.now.Add(after) }
	check := func(what string) {
		w.Helper()
		same(w, what+": plain", plain)(w.s.Key(ctx, plain.ID))
		same(w, what+": rotated", rotated)(w.s.Key(ctx, rotated.ID))
		same(w, what+": idle", idle)(w.s.Key(ctx, idle.ID))
	}

	w.use()
	w.use(keys.Use{Key: plain.ID, At: at(0)}, keys.Use{Key: rotated.ID, Secret: rotated.Secrets[1].Hash, At: at(time.Second)})
	plain.LastUsedAt, rotated.LastUsedAt, rotated.Secrets[1].LastUsedAt = at(0), at(time.Second), at(time.Second)
	check("first")
	w.use(keys.Use{Key: plain.ID, At: at(keys.UseEvery - time.Microsecond)})
	w.use(keys.Use{Key: plain.ID, At: at(-time.Hour)})
	check("too soon, and before")
	w.use(keys.Use{Key: plain.ID, At: at(keys.UseEvery)})
	plain.LastUsedAt = at(keys.UseEvery)
	check("a minute later")

	// The other secret's first use is news of it though not of the key.
	w.use(keys.Use{Key: rotated.ID, Secret: rotated.Secrets[0].Hash, At: at(2 * time.Second)})
	rotated.Secrets[0].LastUsedAt = at(2 * time.Second)
	check("the other secret")
	for _, first := range []int{0, 1} { // in either order the later is the key's
		later := time.Duration(first+1) * time.Hour
		w.use(keys.Use{Key: rotated.ID, Secret: rotated.Secrets[first].Hash, At: at(later)},
			keys.Use{Key: rotated.ID, Secret: rotated.Secrets[1-first].Hash, At: at(later + 10*time.Minute)})
		rotated.LastUsedAt = at(later + 10*time.Minute)
		rotated.Secrets[first].LastUsedAt, rotated.Secrets[1-first].LastUsedAt = at(later), at(later+10*time.Minute)
		check(fmt.Sprint("both secrets, ", first, " first"))
	}

	gone := w.create(w.key(n.account))[0]
	w.apply(keys.Mutation{DeleteKeys: []keys.Key{gone}})
	later := at(5 * time.Hour)
	w.use(keys.Use{Key: gone.ID, At: later}, keys.Use{Key: "key_0", Secret: keys.HashSecret("?"), At: later},
		keys.Use{Key: idle.ID, Secret: keys.HashSecret("?"), At: later},  // a secret that is gone
		keys.Use{Key: idle.ID, Secret: plain.Secrets[0].Hash, At: later}, // another key's
		keys.Use{Key: plain.ID, Secret: plain.Secrets[0].Hash, At: later})
	plain.LastUsedAt, plain.Secrets[0].LastUsedAt = later, later
	check("among keys that are gone")
	fails[keys.Key](w, "a key that is gone", keys.ErrNotFound)(w.s.Key(ctx, gone.ID))
	same(w, "Lookup", keys.Found{Key: plain, Organization: n.organization, Grants: []keys.Grant{n.grant}})(w.s.Lookup(ctx, plain.Secrets[0].Hash))

	if w.h.Reopen != nil {
		w.s = w.h.Reopen(w.T)
		check("reopened")
	}
}

// usedThenEdited: an edit that knows of an earlier use, or of none, takes
// nothing back; one that knows of a later use is right.
func usedThenEdited(w *world) {
	ctx := w.Context()
	n := w.tenant("acme")
	k := w.key(n.account)
	k.Secrets = []keys.Secret{w.secret("the new one"), w.secret("the old one")}
	k = w.create(k)[0]
	at := w.now.Add(time.Hour)
	w.use(keys.Use{Key: k.ID, Secret: k.Secrets[0].Hash, At: at}, keys.Use{Key: k.ID, Secret: k.Secrets[1].Hash, At: at.Add(time.Hour)})

	k.Name = "renamed"
	k.Secrets = []keys.Secret{w.secret("the newest"), k.Secrets[1], k.Secrets[0]}
	w.apply(keys.Mutation{Keys: []keys.Key{k}})
	k.Version, k.LastUsedAt, k.Secrets[1].LastUsedAt, k.Secrets[2].LastUsedAt = 2, at.Add(time.Hour), at.Add(time.Hour), at
	same(w, "an edit that knows of no use", k)(w.s.Key(ctx, k.ID))

	early := k
	early.Secrets = []keys.Secret{k.Secrets[0], k.Secrets[1]}
	early.LastUsedAt, early.Secrets[1].LastUsedAt = w.now, w.now
	w.apply(keys.Mutation{Keys: []keys.Key{early}})
	k.Version, k.Secrets = 3, k.Secrets[:2]
	same(w, "an edit that knows of an earlier use", k)(w.s.Key(ctx, k.ID))

	k.LastUsedAt, k.Secrets[0].LastUsedAt = at.Add(2*time.Hour), at.Add(2*time.Hour)
	w.apply(keys.Mutation{Keys: []keys.Key{k}})
	k.Version = 4
	same(w, "an edit that knows of a later use", k)(w.s.Key(ctx, k.ID))

	// A secret that goes and comes again is a new one.
	back := k
	back.Secrets = k.Secrets[:1]
	w.apply(keys.Mutation{Keys: []keys.Key{back}})
	back.Version = 5
	back.Secrets = []keys.Secret{k.Secrets[0], w.secret("the old one")}
	w.apply(keys.Mutation{Keys: []keys.Key{back}})
	back.Version = 6
	same(w, "a secret that came again", back)(w.s.Key(ctx, k.ID))
}

// usedByMany: more uses in one call than a store writes at once, more than once.
func usedByMany(w *world) {
	n := w.tenant("acme")
	all := make([]keys.Key, 1100)
	for i := range all {
		all[i] = w.key(n.account)
	}
	for i := 0; i < len(all); i += 550 {
		w.create(all[i : i+550]...)
	}
	for round := range 2 {
		uses := make([]keys.Use, len(all))
		for i, k := range all {
			uses[i] = keys.Use{Key: k.ID, At: w.now.Add(time.Duration(round)*time.Hour + time.Duration(i)*time.Second)}
		}
		w.use(uses...)
	}
	for _, i := range []int{0, 999, 1000, 1099} {
		all[i].LastUsedAt = w.now.Add(time.Hour + time.Duration(i)*time.Second)
		same(w, fmt.Sprint("key ", i), all[i])(w.s.Key(w.Context(), all[i].ID))
	}
}

// usedWhileEdited: uses neither make an edit fail nor are they lost to one.
func usedWhileEdited(w *world) {
	const rounds = 30
	ctx := context.Background()
	n := w.tenant("acme")
	k := w.create(w.key(n.account))[0]
	at := func(i int) time.Time { return w.now.Add(time.Duration(i) * time.Hour) }
	var using sync.WaitGroup
	using.Go(func() {
		for i := range rounds {
			if err := w.s.Used(ctx, []keys.Use{{Key: k.ID, Secret: k.Secrets[0].Hash, At: at(i)}}); err != nil {
				w.Errorf("Used: %v", err)
				return
			}
		}
	})
	edited := k
	var last time.Time
	for i := range rounds {
		edited.Description = fmt.Sprint("edit ", i)
		if err := w.try(keys.Mutation{Keys: []keys.Key{edited}}); err != nil { // always as of before the first use
			w.Errorf("edit %d: %v", i, err)
			break
		}
		edited.Version++
		got, err := w.s.Key(ctx, k.ID)
		if err != nil || got.LastUsedAt.Before(last) || got.Secrets[0].LastUsedAt.Before(last) {
			w.Errorf("after edit %d: used %v and %v, error %v; was used %v", i, got.LastUsedAt, got.Secrets[0].LastUsedAt, err, last)
		}
		last = got.Secrets[0].LastUsedAt
	}
	using.Wait()
	edited.LastUsedAt = at(rounds - 1)
	edited.Secrets = []keys.Secret{edited.Secrets[0]}
	edited.Secrets[0].LastUsedAt = at(rounds - 1)
	same(w, "at the end", edited)(w.s.Key(ctx, k.ID))
}
