package management

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// atOnce sends requests at the same moment, by turns through every replica.
func (w *world) atOnce(t *testing.T, all []request) []answer {
	t.Helper()
	answers := make([]answer, len(all))
	start := make(chan struct{})
	var done sync.WaitGroup
	for i, q := range all {
		q.key, q.replica = w.operator, i
		done.Go(func() {
			<-start
			answers[i] = w.send(t, q)
		})
	}
	close(start)
	done.Wait()
	return answers
}

// entries are those of the audit log about a thing, oldest first.
func (w *world) entries(t *testing.T, id string) []object {
	t.Helper()
	all := w.all(t, w.operator, "/v1/audit?target="+id)
	slices.Reverse(all)
	return all
}

// chained wants each entry to begin where the one before it ended, and the last
// to end with what is stored: so the changes happened one after the other.
func (w *world) chained(t *testing.T, id string, stored object) {
	t.Helper()
	var last any
	for i, e := range w.entries(t, id) {
		if fmt.Sprint(e["before"]) != fmt.Sprint(last) {
			t.Errorf("entry %d about %s begins with %v, the one before it ended with %v", i, id, e["before"], last)
		}
		last = e["after"]
	}
	ended, _ := last.(object)
	for name, value := range ended {
		if fmt.Sprint(stored[name]) != fmt.Sprint(value) && name != "former_secret_ends_at" {
			t.Errorf("%s of %s is stored as %v, the audit log ends with %v", name, id, stored[name], value)
		}
	}
}

// concurrently runs a test on every store, with whatever replicas it can have.
func concurrently(t *testing.T, test func(t *testing.T, w *world, x *tenant)) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{at: time.Now().Truncate(time.Second)}
			w := newWorld(t, c, e.open(t)(c))
			t.Cleanup(w.end)
			x := newTenant(t, w, "acme")
			w.settle(t)
			test(t, w, x)
		})
	}
}

// TestOneKeyEditedAtOnce: of edits that name the version they were made for one is
// made, and the others are told which version there is by now. Edits that name none
// are all made, each of its own fields, one after the other.
func TestOneKeyEditedAtOnce(t *testing.T) {
	concurrently(t, func(t *testing.T, w *world, x *tenant) {
		target := "/v1/keys/" + x.key
		rounds := 3
		if full() {
			rounds = 20
		}
		for round := range rounds {
			before := w.send(t, request{key: w.operator, method: "GET", target: target})
			var edits []request
			for i := range 8 {
				edits = append(edits, request{
					method: "PATCH", target: target, body: object{"name": fmt.Sprint("round ", round, ", edit ", i)},
					header: map[string]string{"If-Match": before.header.Get("ETag")},
				})
			}
			var winner object
			for i, a := range w.atOnce(t, edits) {
				switch {
				case a.status == 200 && winner == nil:
					winner = a.object(t)
				case a.status != 412 || a.header.Get("ETag") == before.header.Get("ETag"):
					t.Errorf("edit %d beside the winner %v: %d %s %s", i, winner["name"], a.status, a.header.Get("ETag"), a.raw)
				}
			}
			stored := w.must(t, w.operator, "GET", target, nil)
			if winner == nil || stored["name"] != winner["name"] {
				t.Fatalf("stored is %v, the winner was told %v", stored["name"], winner["name"])
			}
			w.chained(t, x.key, stored)

			merged := w.atOnce(t, []request{
				{method: "PATCH", target: target, body: object{"name": fmt.Sprint("merged ", round)}},
				{method: "PATCH", target: target, body: object{"description": fmt.Sprint("in round ", round)}},
				{method: "PATCH", target: target, body: object{"allowed_cidrs": []string{fmt.Sprintf("10.0.%d.0/24", round)}}},
				{method: "PATCH", target: target, body: object{"expires": fmt.Sprint(round+1, "d")}},
			})
			for i, a := range merged {
				if a.status != 200 {
					t.Errorf("an edit of field %d: %d %s", i, a.status, a.raw)
				}
			}
			stored = w.must(t, w.operator, "GET", target, nil)
			ends := w.clock.now().Add(time.Duration(round+1) * 24 * time.Hour).UTC().Format(time.RFC3339)
			if stored["name"] != fmt.Sprint("merged ", round) || stored["description"] != fmt.Sprint("in round ", round) ||
				fmt.Sprint(stored["allowed_cidrs"]) != fmt.Sprintf("[10.0.%d.0/24]", round) || stored["expires_at"] != ends {
				t.Errorf("an edit is lost: %v", stored)
			}
			w.chained(t, x.key, stored)
		}
	})
}

// TestOneKeyEndedAtOnce: whatever is asked of one key at once happens in some order.
// What comes after the revocation is refused, and no secret outlives it.
func TestOneKeyEndedAtOnce(t *testing.T) {
	concurrently(t, func(t *testing.T, w *world, x *tenant) {
		for range 3 {
			made := x.newKey(t, w, object{"name": "ends", "permissions": []string{"admin"}})
			target := "/v1/keys/" + made["id"].(string)
			answers := w.atOnce(t, []request{
				{method: "POST", target: target + "/rotate", body: object{"overlap": "1h"}},
				{method: "POST", target: target + "/rotate", body: object{"overlap": "1h"}},
				{method: "POST", target: target + "/pause"},
				{method: "POST", target: target + "/revoke"},
				{method: "POST", target: target + "/resume"},
				{method: "PATCH", target: target, body: object{"name": "edited"}},
			})
			w.settle(t)
			secrets := []string{made["secret"].(string)}
			for i, a := range answers {
				switch {
				case a.status == 200:
					if s, ok := a.object(t)["secret"].(string); ok {
						secrets = append(secrets, s)
					}
				case a.status != 409:
					t.Errorf("request %d: %d %s", i, a.status, a.raw)
				}
			}
			for i := range 2 * len(secrets) {
				a := w.send(t, request{replica: i, key: secrets[i/2], method: "GET", target: "/v1/me"})
				if a.status != 401 || a.object(t)["error"] != "API key has been revoked" {
					t.Errorf("secret %d of a revoked key on replica %d: %d %s", i/2, i%2, a.status, a.raw)
				}
			}
			entries := w.entries(t, made["id"].(string))
			if last := entries[len(entries)-1]; last["action"] != "key.revoke" {
				t.Errorf("the audit log ends with %v", last)
			}
			w.chained(t, made["id"].(string), w.must(t, w.operator, "GET", target, nil))
		}
	})
}

// TestPlanHoldsUnderConcurrency: keys that are made, imported, brought back and
// resumed at once through all replicas never come to more than the plan's number.
func TestPlanHoldsUnderConcurrency(t *testing.T) {
	concurrently(t, func(t *testing.T, w *world, x *tenant) {
		const most = 5
		slug := "bounded"
		w.must(t, w.operator, "POST", "/v1/organizations", object{"slug": slug, "plan": "wide", "overrides": object{"max_keys": most}})
		var dead []string // expired keys, which a rotation brings back
		for range 4 {
			k := w.must(t, w.operator, "POST", "/v1/keys", object{"name": "dead", "organization": slug, "expires": w.clock.now().Add(time.Minute).UTC().Format(time.RFC3339)})
			dead = append(dead, k["id"].(string))
		}
		w.clock.advance(time.Hour)
		var all []request
		for i := range 24 {
			create := request{method: "POST", target: "/v1/keys", body: object{"name": fmt.Sprint("made ", i), "organization": slug}}
			switch {
			case i < len(dead):
				create = request{method: "POST", target: "/v1/keys/" + dead[i] + "/rotate"}
			case i%6 == 5:
				create = request{method: "POST", target: "/v1/keys/import", body: object{"keys": []object{{
					"name": fmt.Sprint("imported ", i), "organization": slug, "hash": fmt.Sprintf("%064x", i),
				}}}}
			}
			all = append(all, create)
		}
		made := 0
		for i, a := range w.atOnce(t, all) {
			switch o := a.object(t); {
			case a.status == 200 && o["imported"] != nil:
				made += int(o["imported"].(float64))
			case a.status == 200 || a.status == 201:
				made++
			case a.status != 409 || o["error"] != "Conflict":
				t.Errorf("request %d: %d %s", i, a.status, a.raw)
			}
		}
		active := w.all(t, w.operator, "/v1/keys?status=active&organization="+slug)
		if made != most || len(active) != most {
			t.Errorf("%d keys were made and %d are active, of %d", made, len(active), most)
		}
		actions := map[string]int{}
		for _, e := range w.all(t, w.operator, "/v1/audit?organization="+slug) {
			actions[e["action"].(string)]++
		}
		if n := actions["key.create"] + actions["key.rotate"] + actions["key.import"] - len(dead); n != most {
			t.Errorf("the audit log tells of %d keys, not %d: %v", n, most, actions)
		}
	})
}

// TestOneNameAtOnce: of requests under one Idempotency-Key one is made, and the others
// are answered with it. They were asked to come again, under a name that the command
// line, which sends a request twice where the connection breaks, had forgotten by then.
func TestOneNameAtOnce(t *testing.T) {
	concurrently(t, func(t *testing.T, w *world, x *tenant) {
		var all []request
		for range 8 {
			all = append(all, request{
				method: "POST", target: "/v1/keys", body: object{"name": "once", "organization": x.slug}, header: map[string]string{"Idempotency-Key": "once"},
			})
		}
		secrets := 0
		for i, a := range w.atOnce(t, all) {
			o := a.object(t)
			switch {
			case a.status == 201 && o["replayed"] == nil:
				secrets++
			case a.status != 201 || o["secret"] != nil:
				t.Errorf("request %d: %d %s", i, a.status, a.raw)
			}
		}
		for i := range all { // refused for what the first one did
			all[i] = request{
				method: "POST", target: "/v1/accounts/" + x.weakAccount + "/grants", body: object{"permission": "reports:read"}, header: map[string]string{"Idempotency-Key": "grant"},
			}
		}
		for i, a := range w.atOnce(t, all) {
			if a.status != 201 {
				t.Errorf("grant %d: %d %s", i, a.status, a.raw)
			}
		}
		if got := w.all(t, w.operator, "/v1/keys?name=once"); secrets != 1 || len(got) != 1 {
			t.Errorf("%d keys were made, %d answers had a secret", len(got), secrets)
		}
	})
}
