package admin

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestClientExportsTheAuditLog(t *testing.T) {
	t.Parallel()
	in := start(t)
	c := in.client()
	for _, slug := range []string{"acme", "globex"} {
		if _, err := c.CreateOrganization(t.Context(), NewOrganization{Slug: slug}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	n, err := c.ExportAudit(t.Context(), AuditOptions{Action: "organization.create", Limit: 1}, &out)
	if lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"); err != nil || n < 2 || len(lines) != n || !strings.Contains(lines[0], "globex") {
		t.Errorf("%d entries, %v:\n%s", n, err, &out)
	}
	var refused *APIError
	if _, err := c.ExportAudit(t.Context(), AuditOptions{Organization: "nope"}, io.Discard); !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
		t.Error(err)
	}
}

// An export that ends early is never taken for a whole one.
func TestClientNoticesABrokenExport(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(http.ResponseWriter){
		"cut off": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "{}\n{\"id\":")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"cut off between lines": func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "{}\n")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
		"ended in a line": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "{}\n{\"id\":") },
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/jsonl")
				broken(w)
			}))
			defer s.Close()
			u, err := url.Parse(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			n, err := (&Client{URL: u, Key: "k"}).ExportAudit(t.Context(), AuditOptions{}, &out)
			var off *BrokenOffError
			if !errors.As(err, &off) || n != 1 || out.String() != "{}\n" {
				t.Errorf("%d entries, %v: %q", n, err, &out)
			}
		})
	}
	another := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }))
	defer another.Close()
	u, err := url.Parse(another.URL)
	if err != nil {
		t.Fatal(err)
	}
	var refused *APIError
	if _, err := (&Client{URL: u, Key: "k"}).ExportAudit(t.Context(), AuditOptions{}, io.Discard); !errors.As(err, &refused) {
		t.Error(err)
	}
}

func TestClientTellsWhoConfirmed(t *testing.T) {
	t.Parallel()
	in := start(t)
	c := in.client()
	told := 0
	c.WaitReplicas, c.Confirmed = true, func(all []Confirmation) {
		if told++; len(all) != 1 || !all[0].Confirmed || all[0].Name != "here" {
			t.Errorf("%+v", all)
		}
	}
	k, err := c.CreateKey(t.Context(), NewKey{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetKey(t.Context(), k.ID); err != nil || told != 1 {
		t.Errorf("told %d times, %v", told, err)
	}
	if err := c.DeleteKey(t.Context(), k.ID); err != nil || told != 2 {
		t.Errorf("told %d times, %v", told, err)
	}
}
