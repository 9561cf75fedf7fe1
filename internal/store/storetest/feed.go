package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
)

// feed: what was written is what is told, in the order in which it was made.
func feed(w *world) {
	end := w.end()
	n := w.tenant("acme")
	want := []keys.Change{
		{Kind: keys.KindAccount, ID: n.account.ID, Organization: n.organization.ID, Version: 1}, // its grant is told with it
		{Kind: keys.KindOrganization, ID: n.organization.ID, Organization: n.organization.ID, Version: 1},
		{Kind: keys.KindSpace, ID: n.space.ID, Organization: n.organization.ID, Version: 1},
	}
	got := w.since(end)
	slices.SortFunc(got, byKind) // the order within one change is not fixed
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("a new tenant (-want +got):\n%s", diff)
	}

	end = w.end()
	k := w.create(w.key(n.account))[0]
	operator := keys.Account{ID: w.id("acc_"), Name: "operator"}
	w.apply(keys.Mutation{Accounts: []keys.Account{operator}})
	w.apply(keys.Mutation{Keys: []keys.Key{k}, Audit: []keys.AuditEntry{w.audit("key.update")}})
	k.Version++
	w.apply(keys.Mutation{Grants: []keys.Grant{w.grant(n.account)}}) // changes the account's rights, not its record
	w.apply(keys.Mutation{Settings: []keys.Setting{{Name: "mode"}}})
	w.apply(keys.Mutation{DeleteKeys: []keys.Key{k}})
	w.apply(keys.Mutation{Audit: []keys.AuditEntry{w.audit("only.said")}})
	want = []keys.Change{
		{Kind: keys.KindKey, ID: k.ID, Organization: n.organization.ID, Version: 1},
		{Kind: keys.KindAccount, ID: operator.ID, Version: 1},
		{Kind: keys.KindKey, ID: k.ID, Organization: n.organization.ID, Version: 2},
		{Kind: keys.KindAccount, ID: n.account.ID, Organization: n.organization.ID, Version: 1},
		{Kind: keys.KindSetting, ID: "mode", Version: 1},
		{Kind: keys.KindKey, ID: k.ID, Organization: n.organization.ID, Version: 0},
	}
	if diff := cmp.Diff(want, w.since(end)); diff != "" {
		w.Errorf("changes (-want +got):\n%s", diff)
	}
}

func byKind(a, b keys.Change) int {
	if a.Kind < b.Kind {
		return -1
	}
	return 1
}

// feedFromTheStart: 0 is the beginning, on an empty feed too, and FeedEnd skips
// what there is.
func feedFromTheStart(w *world) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // none of this waits
	defer cancel()
	same(w, "empty feed", keys.ChangeBatch{})(w.s.Changes(ctx, 0, 0))
	same(w, "end of an empty feed", keys.ChangeBatch{})(w.s.Changes(ctx, keys.FeedEnd, time.Minute))
	w.apply(keys.Mutation{Settings: []keys.Setting{{Name: "a"}}})
	batch, err := w.s.Changes(ctx, 0, 0)
	if err != nil || len(batch.Changes) != 1 || batch.Gap || batch.Changes[0].ID != "a" || batch.Next != batch.Changes[0].Seq || batch.Next <= 0 {
		w.Errorf("from the beginning: %+v, %v", batch, err)
	}
	same(w, "from the end", keys.ChangeBatch{Next: batch.Next})(w.s.Changes(ctx, keys.FeedEnd, time.Minute))
	same(w, "nothing more", keys.ChangeBatch{Next: batch.Next})(w.s.Changes(ctx, batch.Next, 0))
	same(w, "ahead of the end, as after a restored backup", keys.ChangeBatch{Next: batch.Next, Gap: true})(w.s.Changes(ctx, batch.Next+1000, time.Minute))
}

// feedInBatches: at most 1,000 at a time, and nothing lost between two.
func feedInBatches(w *world) {
	const all, most = 2300, 1000
	if w.h.KeepChanges > 0 && w.h.KeepChanges < all {
		w.Skip("the store keeps fewer entries than two batches")
	}
	readInBatches(w, all, most)
}

func readInBatches(w *world, all, most int) {
	cursor := w.end()
	for made := 0; made < all; {
		var m keys.Mutation
		for ; len(m.Settings) < 500 && made < all; made++ {
			m.Settings = append(m.Settings, keys.Setting{Name: fmt.Sprint("setting-", made)})
		}
		w.apply(m)
	}
	for read := 0; read < all; {
		batch, err := w.s.Changes(w.Context(), cursor, time.Minute)
		if err != nil || batch.Gap || len(batch.Changes) == 0 || len(batch.Changes) > most {
			w.Fatalf("after %d: %d changes, gap %v, error %v", cursor, len(batch.Changes), batch.Gap, err)
		}
		for _, c := range batch.Changes {
			if want := fmt.Sprint("setting-", read); c.ID != want || c.Seq <= cursor {
				w.Fatalf("change %d is of %s after cursor %d; want %s", c.Seq, c.ID, cursor, want)
			}
			cursor = c.Seq
			read++
		}
		if batch.Next != cursor {
			w.Fatalf("Next is %d; want %d", batch.Next, cursor)
		}
	}
}

// feedWaits: a change wakes those who wait, and without one the wait is bounded.
func feedWaits(w *world) {
	ctx := context.Background()
	end := w.end()
	const bound = 50 * time.Millisecond
	start := time.Now()
	same(w, "nothing changed", keys.ChangeBatch{Next: end})(w.s.Changes(ctx, end, bound))
	if took := time.Since(start); took < bound || took > bound+10*time.Second {
		w.Errorf("waited %v; want %v", took, bound)
	}

	const waiting = 4
	type answer struct {
		batch keys.ChangeBatch
		err   error
	}
	answers := make(chan answer, waiting)
	for range waiting {
		go func() {
			batch, err := w.s.Changes(ctx, end, time.Minute)
			answers <- answer{batch, err}
		}()
	}
	time.Sleep(20 * time.Millisecond) // most likely they wait by now; if not, they find the change
	w.apply(keys.Mutation{Settings: []keys.Setting{{Name: "wake"}}})
	for range waiting {
		select {
		case a := <-answers:
			if a.err != nil || len(a.batch.Changes) != 1 || a.batch.Changes[0].ID != "wake" {
				w.Errorf("woken with %+v, %v", a.batch, a.err)
			}
		case <-time.After(20 * time.Second):
			w.Fatal("still waiting 20s after the change")
		}
	}

	cancelled, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	fails[keys.ChangeBatch](w, "cancelled while waiting", context.Canceled)(w.s.Changes(cancelled, w.end(), time.Minute))
}

// feedUnderConcurrency: readers who follow while many write miss nothing.
func feedUnderConcurrency(w *world) {
	const writers, each, readers = 6, 10, 3
	start := w.end()
	type outcome struct {
		seen []string
		err  error
	}
	outcomes := make(chan outcome, readers)
	for range readers {
		go func() {
			var o outcome
			for cursor := start; len(o.seen) < writers*each && o.err == nil; {
				batch, err := w.s.Changes(context.Background(), cursor, 20*time.Second)
				if err == nil && (batch.Gap || len(batch.Changes) == 0) {
					err = fmt.Errorf("gap %v, %d changes after %d", batch.Gap, len(batch.Changes), cursor)
				}
				for _, c := range batch.Changes {
					if c.Seq <= cursor {
						err = errors.Join(err, fmt.Errorf("change %d comes after %d", c.Seq, cursor))
					}
					cursor = c.Seq
					o.seen = append(o.seen, c.ID)
				}
				o.err = err
			}
			outcomes <- o
		}()
	}
	var want []string
	for i := range writers * each {
		want = append(want, fmt.Sprint("s-", i))
	}
	for _, err := range inParallel(writers, func(i int) error {
		for j := range each {
			if err := w.try(keys.Mutation{Settings: []keys.Setting{{Name: want[i*each+j]}}}); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			w.Fatal(err)
		}
	}
	slices.Sort(want)
	var first []string
	for i := range readers {
		o := <-outcomes
		if o.err != nil {
			w.Fatal(o.err)
		}
		if i == 0 {
			first = slices.Clone(o.seen)
		} else if !slices.Equal(o.seen, first) {
			w.Errorf("two readers saw different orders:\n%v\n%v", first, o.seen)
		}
		slices.Sort(o.seen)
		if !slices.Equal(o.seen, want) {
			w.Errorf("a reader saw %v", o.seen)
		}
	}
}

// feedGap: who falls behind what is kept is told, and can go on from there.
func feedGap(w *world) {
	if w.h.KeepChanges == 0 {
		w.Skip("it is not known how many entries are kept")
	}
	w.apply(keys.Mutation{Settings: []keys.Setting{{Name: "first"}}})
	start := w.end()
	made := 0
	write := func(n int) {
		var m keys.Mutation
		for range n {
			m.Settings = append(m.Settings, keys.Setting{Name: fmt.Sprint("s-", made)})
			made++
		}
		w.apply(m)
	}
	write(w.h.KeepChanges / 2)
	if batch, err := w.s.Changes(w.Context(), start, 0); err != nil || batch.Gap || batch.Changes[0].ID != "s-0" {
		w.Fatalf("half of what is kept: gap %v, error %v", batch.Gap, err)
	}
	for made < 10*w.h.KeepChanges {
		write(w.h.KeepChanges)
	}
	for _, cursor := range []int64{0, start} {
		batch, err := w.s.Changes(w.Context(), cursor, time.Minute)
		if err != nil || !batch.Gap {
			w.Fatalf("after %d, %d changes ago: gap %v, error %v", cursor, made, batch.Gap, err)
		}
		last := ""
		for batch.Next != w.end() {
			if batch, err = w.s.Changes(w.Context(), batch.Next, 0); err != nil || batch.Gap || len(batch.Changes) == 0 {
				w.Fatalf("going on: %d changes, gap %v, error %v", len(batch.Changes), batch.Gap, err)
			}
		}
		if len(batch.Changes) > 0 {
			last = batch.Changes[len(batch.Changes)-1].ID
		}
		if want := fmt.Sprint("s-", made-1); last != want {
			w.Errorf("the last change is of %q; want %q", last, want)
		}
	}
	near, err := w.s.Changes(w.Context(), w.end()-int64(w.h.KeepChanges)/2, 0)
	if err != nil || near.Gap || len(near.Changes) != w.h.KeepChanges/2 {
		w.Errorf("half of what is kept before the end: %d changes, gap %v, error %v", len(near.Changes), near.Gap, err)
	}
}

// registerPolicy: a policy keeps its number until another one comes.
func registerPolicy(w *world) {
	ctx := context.Background()
	register := func(digest string) int64 {
		w.Helper()
		n, err := w.s.RegisterPolicy(ctx, digest, w.audit("policy.load "+digest))
		if err != nil {
			w.Fatalf("RegisterPolicy: %v", err)
		}
		return n
	}
	first := register("a")
	if first < 1 {
		w.Errorf("the first number is %d", first)
	}
	want := []struct {
		digest string
		number int64
	}{{"a", first}, {"b", first + 1}, {"b", first + 1}, {"a", first + 2}, {"a", first + 2}}
	for _, x := range want {
		if n := register(x.digest); n != x.number {
			w.Errorf("policy %s has number %d; want %d", x.digest, n, x.number)
		}
	}
	entries, err := w.auditLog(ctx, keys.Page{Limit: 10})
	if err != nil {
		w.Fatal(err)
	}
	var actions []string
	for _, e := range entries {
		actions = append(actions, e.Action)
	}
	if logged := []string{"policy.load a", "policy.load b", "policy.load a"}; !slices.Equal(actions, logged) {
		w.Errorf("the audit log has %q; want %q: one entry for each number", actions, logged)
	}

	// Replicas that load the same file at once agree.
	by := make([]keys.AuditEntry, 8)
	for i := range by {
		by[i] = w.audit("policy.load c")
	}
	numbers := make([]int64, len(by))
	for _, err := range inParallel(len(by), func(i int) (err error) {
		numbers[i], err = w.s.RegisterPolicy(ctx, "c", by[i])
		return err
	}) {
		if err != nil {
			w.Fatal(err)
		}
	}
	for _, n := range numbers {
		if n != first+3 {
			w.Errorf("numbers %v; want %d everywhere", numbers, first+3)
			break
		}
	}
	if w.h.Reopen != nil {
		w.s = w.h.Reopen(w.T)
		if n := register("c"); n != first+3 {
			w.Errorf("after reopening the number is %d; want %d", n, first+3)
		}
		if n := register("d"); n != first+4 {
			w.Errorf("after reopening the next number is %d; want %d", n, first+4)
		}
	}
}
