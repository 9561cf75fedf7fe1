package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"keygate/internal/admin"
)

// A second rotation within the overlap of the first once ended the first secret,
// promised for a day, without a word.
func TestRotateEndsAPromisedSecret(t *testing.T) {
	t.Parallel()
	in := start(t)
	first := decoded[admin.CreatedKey](t, in.must("keys", "create", "--name", "busy", "--permissions", "orders:read", "-o", "json"))
	in.must("keys", "rotate", "busy", "--overlap", "24h")
	label := shownSecret(first.Prefix, first.LastFour)

	if r := in.run("keys", "rotate", "busy", "--overlap", "24h"); r.code != exitUsage || !strings.Contains(r.stderr, label) || !strings.Contains(r.stderr, "--yes") {
		t.Errorf("without a terminal: %+v", r)
	}
	var stderr bytes.Buffer
	a := &app{env: in.env, stdin: strings.NewReader("n\n"), stdout: io.Discard, stderr: &stderr, terminal: func(any) bool { return true }}
	if code := a.run(t.Context(), []string{"keys", "rotate", "busy", "--overlap", "24h"}); code != exitFailure || !strings.Contains(stderr.String(), label+", which was to work until") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
	if k := decoded[admin.Key](t, in.must("keys", "get", "busy", "-o", "json")); k.Former.LastFour != first.LastFour {
		t.Errorf("the key was rotated all the same: %+v", k.Former)
	}
	if r := in.must("keys", "rotate", "busy", "--overlap", "24h", "--yes"); !strings.Contains(r.stderr, "The secret "+label+", which was to work until") {
		t.Errorf("%+v", r)
	}
}

func TestFormerSecretIsShownAsItIs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	soon, later := now.Add(time.Hour), now.Add(24*time.Hour)
	for _, tc := range []struct {
		name string
		key  admin.Key
		want string
	}{
		{"in its overlap", admin.Key{Status: "active", Former: &admin.FormerSecret{EndsAt: soon}}, "works until " + timestamp(soon)},
		{"ended", admin.Key{Status: "active", Former: &admin.FormerSecret{EndsAt: now}}, "ended " + timestamp(now)},
		{"the key expires before", admin.Key{Status: "active", ExpiresAt: soon, Former: &admin.FormerSecret{EndsAt: later}}, "works until " + timestamp(soon)},
		{"the key is revoked", admin.Key{Status: "revoked", RevokedAt: now, Former: &admin.FormerSecret{EndsAt: later}}, "ended " + timestamp(now)},
		{"the key was revoked after", admin.Key{Status: "revoked", RevokedAt: now, Former: &admin.FormerSecret{EndsAt: now.Add(-time.Hour)}}, "ended " + timestamp(now.Add(-time.Hour))},
		{"the key is paused", admin.Key{Status: "paused", Former: &admin.FormerSecret{EndsAt: later}}, "ends " + timestamp(later)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.key.Former.LastFour = "x78H"
			if got := formerSecret(tc.key); got != "_…x78H, "+tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// A script must notice a replica that has not acted on a change.
func TestWaitFailsWithoutConfirmation(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		asked []admin.Confirmation
		want  bool
	}{
		"all":    {[]admin.Confirmation{{ID: "rep_1", Confirmed: true}}, true},
		"a part": {[]admin.Confirmation{{ID: "rep_1", Confirmed: true}, {ID: "rep_2"}}, false},
		"none":   {nil, false},
	} {
		a := &app{stderr: io.Discard, replicas: &confirmations{}}
		a.replicas.add(tc.asked)
		if got := a.reportReplicas(); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	in := start(t) // where the one replica never confirms
	in.must("keys", "create", "--name", "a")
	if r := in.run("keys", "pause", "a", "--wait"); r.code != exitFailure || !strings.Contains(r.stdout, "paused") || !strings.Contains(r.stderr, "warning") {
		t.Errorf("%+v", r)
	}
}
