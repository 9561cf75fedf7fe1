package management

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHostileTenants: every key of one organization asks every operation for the
// other's things, by every name they have. The answers are those about things
// that do not exist, and nothing changes.
func TestHostileTenants(t *testing.T) {
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			c := &clock{at: time.Now().Truncate(time.Second)}
			w := newWorld(t, c, e.open(t)(c))
			t.Cleanup(w.end)
			own, other := newTenant(t, w, "acme"), newTenant(t, w, "globex")
			w.settle(t)
			operations := w.operations(t)
			for id := range operations {
				if hostile[id] == nil {
					t.Errorf("the operation %s has no attempts here", id)
				}
			}
			nobody, before := w.nobody(), w.snapshot(t)
			for id, attempts := range hostile {
				operation, known := operations[id]
				if !known {
					t.Errorf("there is no operation %s", id)
					continue
				}
				real, ghost := attempts(own, other.refs()), attempts(own, nobody)
				for i := range real {
					if method, _, _ := strings.Cut(operation, " "); method != real[i].method {
						t.Errorf("%s is %s, tried with %s", id, operation, real[i].method)
					}
					for name, secret := range own.keys {
						if !full() && name != "owner" && name != "restricted" && name != "reader" {
							continue
						}
						refuses(t, w, fmt.Sprint(id, " as ", name), secret, name == "owner", real[i], ghost[i], other, nobody)
					}
				}
			}
			if after := w.snapshot(t); after != before {
				t.Errorf("something changed:\n%s", difference(before, after))
			}
		})
	}
}

// refuses wants the answer about another's thing to be the one about nothing.
func refuses(t *testing.T, w *world, name, secret string, owner bool, real, ghost attempt, other *tenant, ghosts refs) {
	t.Helper()
	real.key, ghost.key = secret, secret
	got, want := w.send(t, real.request), w.send(t, ghost.request)
	asked := fmt.Sprintf("%s: %s %s %v", name, real.method, real.target, real.body)
	switch {
	case got.status >= 500:
		t.Errorf("%s: %d %s", asked, got.status, got.raw)
	case owner && got.status != real.want:
		t.Errorf("%s: %d, want %d: %s", asked, got.status, real.want, got.raw)
	case got.status != real.want && got.status != http.StatusForbidden:
		t.Errorf("%s: %d, want %d or 403: %s", asked, got.status, real.want, got.raw)
	}
	if a, b := got.blank(other.refs()), want.blank(ghosts); a != b && !real.elsewhere {
		t.Errorf("%s:\n  is answered   %s\n  where nothing %s", asked, a, b)
	}
	sent := fmt.Sprint(real.target, real.body)
	for _, private := range []string{other.org, other.space, other.account, other.grant, other.key, other.name, other.secret, other.slug, "host-of-the-operator"} {
		if strings.Contains(string(got.raw), private) && !strings.Contains(sent, private) {
			t.Errorf("%s: the answer holds %s: %s", asked, private, got.raw)
		}
	}
}

// difference is the first line in which two texts differ.
func difference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return "- " + x[i] + "\n+ " + y[i]
		}
	}
	return fmt.Sprintf("%d lines, then %d", len(x), len(y))
}
