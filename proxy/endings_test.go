package proxy_test

import (
	"net/http"
	"testing"
	"time"

	"keygate/internal/keys"
)

// Answers announce when a key or a rotated-out secret ends, a week ahead: also
// refusals that come after the key was found, never those that say nothing of it.
func TestEndingsAreAnnounced(t *testing.T) {
	g := newGate(t, gateOptions{})
	now := g.clock().UTC().Truncate(time.Second)
	ends := now.Add(30 * 24 * time.Hour)
	k, secret := g.key(keys.NewKey{Name: "ends", Plan: "pro", Permissions: []string{"orders:read"}, Expires: ends.Format(time.RFC3339)})
	_, forever := g.key(keys.NewKey{Name: "endless", Plan: "pro"})
	announced := func(path, secret string, status int, key, former string) {
		t.Helper()
		a := g.get("GET", path, secret)
		if a.StatusCode != status || a.Header.Get("X-Keygate-Key-Expires") != key || a.Header.Get("X-Keygate-Secret-Expires") != former {
			t.Errorf("%s: %d %v, want %d, key %q, secret %q", path, a.StatusCode, a.Header, status, key, former)
		}
	}
	announced("/any/x", secret, 200, "", "")
	g.wait(23*24*time.Hour - time.Second)
	announced("/any/x", secret, 200, "", "")
	g.wait(time.Second)
	announced("/any/x", secret, 200, ends.Format(time.RFC3339), "")
	announced("/any/x", forever, 200, "", "")
	announced(itself, secret, 200, ends.Format(time.RFC3339), "")
	announced("/nowhere/x", secret, http.StatusNotFound, "", "")

	_, fresh, err := g.service.RotateKey(t.Context(), keys.System, k.ID, keys.Rotation{Overlap: 48 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	until := g.clock().UTC().Add(48 * time.Hour).Format(time.RFC3339)
	announced("/any/x", secret, 200, ends.Format(time.RFC3339), until)
	announced("/any/x", fresh, 200, ends.Format(time.RFC3339), "")
	g.wait(48 * time.Hour)
	announced("/any/x", secret, http.StatusUnauthorized, "", "")
}
