package server

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"keygate/config"
	"keygate/internal/keys"
	"keygate/proxy"
)

// numbering is a store that numbers policies, unless it is away.
type numbering struct {
	keys.Store
	away bool
	next int64
}

func (n *numbering) RegisterPolicy(context.Context, string, keys.AuditEntry) (int64, error) {
	if n.away {
		return 0, errors.New("away")
	}
	n.next++
	return n.next, nil
}

// A policy that was refused is not tried again as it is; one that the store could
// not number is.
func TestWhatCountsAsAChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const good, bad, other = "version: 1\nroutes: [{ match: /a, permission: any }]\n", "version: 2\n", "version: 1\nroutes: [{ match: /b, permission: any }]\n"
	write(good)
	store := &numbering{}
	metrics := prometheus.NewRegistry()
	gate := proxy.New(proxy.Options{Metrics: metrics, Now: time.Now})
	c := config.Config{DefaultPlan: keys.PlanFree, PolicyFile: file, Upstream: &url.URL{Scheme: "http", Host: "127.0.0.1"}}
	l := newPolicyLoader(c, store, gate, zap.NewNop(), metrics, time.Now)
	for _, step := range []struct {
		what, text string
		away       bool
		rules      int64
		changed    bool // afterwards
	}{
		{"the first", good, false, 1, false},
		{"a bad one", bad, false, 1, false},
		{"the first again", good, false, 2, false},
		{"another, without the store", other, true, 2, true},
		{"the same, with the store", other, false, 3, false},
	} {
		store.away = step.away
		write(step.text)
		if !l.changed() {
			t.Errorf("%s: it is no change", step.what)
		}
		l.reloadChanged(t.Context())
		if l.status().Rules != step.rules || l.changed() != step.changed {
			t.Errorf("%s: policy %d is in force, changed: %v", step.what, l.status().Rules, l.changed())
		}
		if failed := l.status().Error != ""; failed != (step.text == bad || step.away) {
			t.Errorf("%s: %+v", step.what, l.status())
		}
	}
	l.reloadChanged(t.Context())
	if store.next != 3 {
		t.Errorf("the policy was loaded again: %d", store.next)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if !l.changed() {
		t.Error("a file that is gone is no change")
	}
}
