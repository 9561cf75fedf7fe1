package server

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
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

// A policy that names files is another one when they are, and has the number that it
// had: only what decides over requests makes a new one.
func TestNamedFilesCount(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var authorities [2]string
	for i := range authorities {
		s := httptest.NewTLSServer(http.NotFoundHandler())
		s.Close()
		authorities[i] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})) + strings.Repeat("\n", i)
	}
	policy := fmt.Sprintf("version: 1\nupstreams: { api: { targets: [\"https://127.0.0.1\"], tls: { ca: %q } } }\nroutes: [{ match: /a, permission: any }]\n", file)
	store := &numbering{}
	metrics := prometheus.NewRegistry()
	gate := proxy.New(proxy.Options{Metrics: metrics, Now: time.Now})
	l := newPolicyLoader(config.Config{DefaultPlan: keys.PlanFree, Policy: policy}, store, gate, zap.NewNop(), metrics, time.Now)
	l.reload(t.Context()) // refused: the file is not there yet
	for _, step := range []struct {
		what, text string
		fails      bool
	}{
		{"it appears", authorities[0], false},
		{"it is renewed", authorities[1], false},
		{"it is damaged", "no certificate", true},
		{"it is mended", authorities[0], false},
	} {
		if l.changed() {
			t.Errorf("before %s: it changed by itself", step.what)
		}
		write(step.text)
		if !l.changed() {
			t.Errorf("%s: it is no change", step.what)
		}
		l.reloadChanged(t.Context())
		if status := l.status(); status.Rules != 1 || (status.Error != "") != step.fails {
			t.Errorf("%s: %+v", step.what, status)
		}
	}
	if store.next != 1 {
		t.Errorf("the store numbered it %d times", store.next)
	}
}
