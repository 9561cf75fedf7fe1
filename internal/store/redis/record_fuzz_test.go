package redis

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
)

// FuzzRecords: whatever stands in Redis, it is read as a record that can be judged, or
// the error says which one cannot be read.
func FuzzRecords(f *testing.F) {
	f.Add("key_1", `{"v":3,"n":"a","o":"org_1","a":"acc_1","p":["x:y"],"ip":["10.0.0.0/8"],"c":1,"x":2,"s":[{"h":"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU","f":"kg_live","e":"abcd"}]}`, "1.7e+15", "- 5\n47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU 7\n")
	f.Add("org_1", `{"v":1,"s":"a","l":"{\"max_keys\":1}"}`, "7", "1 {\"a\":\"acc_1\",\"r\":\"owner\"}\n0 {}\n")
	f.Add("", `{"at":1,"do":"key.create","from":"{}"}`, "1 2 {}", "x")
	f.Add("rep_1", `{"v":1e3}`, "nan", "1 1 {\"n\":\"a\"}")
	f.Add("1-0", "7", "key", "- 1e9")
	f.Fuzz(func(t *testing.T, id, text, more, lines string) {
		named := func(what string, err error) {
			if err != nil && !strings.Contains(err.Error(), id) {
				t.Fatalf("%s: the error does not say which: %v", what, err)
			}
		}
		_, err := decodeOrganization(id, text)
		named("organization", err)
		_, err = decodeSpace(id, text)
		named("space", err)
		_, err = decodeAccount(id, text)
		named("account", err)
		_, err = decodeAudit(id, text)
		named("audit entry", err)
		_, err = decodeReplica(id, more+" "+text)
		named("replica", err)
		_, err = decodeReplica(id, lines)
		named("replica", err)

		grants, err := decodeGrants(lines)
		if err == nil && !slices.IsSortedFunc(grants, func(a, b keys.Grant) int { return strings.Compare(a.ID, b.ID) }) {
			t.Fatalf("%q: grants %v", lines, grants)
		}
		k, err := decodeKey(id, text, more, lines)
		named("key", err)
		if err == nil {
			checkKey(t, id, text, k)
		}
		changes, err := parseChanges([]goredis.XMessage{{ID: id, Values: map[string]any{"k": "key", "i": more, "v": text, "o": 1}}}, 1<<eraShift)
		named("change", err)
		if err == nil && (len(changes) != 1 || changes[0].ID != more) {
			t.Fatalf("%v", changes)
		}
	})
}

// checkKey wants no use of a key to be forgotten, and no secret to lose its hash.
func checkKey(t *testing.T, id, text string, k keys.Key) {
	t.Helper()
	var was keyRecord
	if err := json.Unmarshal([]byte(text), &was); err != nil || k.ID != id || len(k.Secrets) != len(was.Secrets) || k.Version != was.Version {
		t.Fatalf("%q is read as %+v", text, k)
	}
	for i, s := range k.Secrets {
		if h, err := parseHash(was.Secrets[i].Hash); err != nil || h != s.Hash || micros(s.LastUsedAt) < was.Secrets[i].LastUsed {
			t.Fatalf("secret %d of %q is read as %+v", i, text, s)
		}
	}
	if micros(k.LastUsedAt) < was.LastUsed {
		t.Fatalf("%q: last used %v", text, k.LastUsedAt)
	}
}
