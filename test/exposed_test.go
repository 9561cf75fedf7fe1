package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A key in a URL was refused and counted, and nobody could tell whose it was. It is
// reported like one in clear, and the key itself is nowhere in what keygate writes.
func TestKeyInAURL(t *testing.T) {
	t.Parallel()
	for _, pause := range []bool{false, true} {
		t.Run(fmt.Sprintf("pause=%v", pause), func(t *testing.T) {
			t.Parallel()
			testKeyInAURL(t, pause)
		})
	}
}

func testKeyInAURL(t *testing.T, pause bool) {
	api := newUpstream(t, nil)
	g := start(t, settings{
		"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_PAUSE_EXPOSED_KEYS": fmt.Sprint(pause),
	})
	asked, encoded, beside, inPath, honest := g.newKey("query"), g.newKey("encoded"), g.newKey("beside"), g.newKey("path"), g.newKey("honest")
	for range 3 {
		g.refused(http.StatusUnauthorized, "API key is missing", "/x?k="+asked.Secret, "")
	}
	g.refused(http.StatusUnauthorized, "API key is missing", "/x?k="+strings.ReplaceAll(encoded.Secret, "_", "%5F"), "")
	g.refused(http.StatusBadRequest, "Ambiguous credentials", "/x?k="+beside.Secret, honest.Secret)
	g.refused(http.StatusUnauthorized, "API key is missing", "/x/"+inPath.Secret, "")
	g.refused(http.StatusBadRequest, "Ambiguous credentials", "/x/"+inPath.Secret, honest.Secret)
	g.refused(http.StatusUnauthorized, "API key is missing", "/x?k="+newSecret(t), "") // nobody's
	if n := g.metric(`keygate_exposed_keys_total{where="url"}`); n != 8 {
		t.Errorf("%v requests with a key in their URL are counted, want 8", n)
	}
	exposed := []string{asked.ID, encoded.ID, beside.ID, inPath.ID}
	eventually(t, "the keys are reported", func() bool {
		return len(g.logged("an API key was sent in a URL and must be taken as exposed")) == len(exposed)
	})
	r := g.cli("audit", "list", "--action", "key.exposed", "-o", "json")
	if n := strings.Count(r.stdout, `"key.exposed"`); n != len(exposed) {
		t.Errorf("%d entries in the audit log, want %d: %s", n, len(exposed), r.stdout)
	}
	if n := strings.Count(r.stdout, `"address": "127.0.0.1"`); n != len(exposed) {
		t.Errorf("%d entries have the address that the key came from, want %d: %s", n, len(exposed), r.stdout)
	}
	want := http.StatusOK
	if pause {
		want = http.StatusUnauthorized
	}
	for _, secret := range []string{asked.Secret, encoded.Secret, beside.Secret, inPath.Secret} {
		eventually(t, "the key is as it should be", func() bool { return g.get("/y", secret).status == want })
	}
	g.wants(http.StatusOK, "/y", honest.Secret)
	g.stop() // the log is whole then
	named := make(map[any]int)
	for _, line := range g.logged("request") {
		if line["key_exposed_in_url"] == true {
			named[line["key_id"]]++
		}
		for _, secret := range []string{asked.Secret, encoded.Secret, beside.Secret, inPath.Secret} {
			if strings.Contains(fmt.Sprint(line), secret) {
				t.Errorf("a key is in the log: %v", line)
			}
		}
	}
	if named[asked.ID] != 3 || named[encoded.ID] != 1 || named[beside.ID] != 1 || named[inPath.ID] != 2 || named[nil] != 1 {
		t.Errorf("log lines of requests with a key in their URL: %v", named)
	}
}
