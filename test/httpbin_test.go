package test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mccutchen/go-httpbin/v2/httpbin"

	"keygate/internal/admin"
)

// KEYGATE_UPSTREAM alone puts the gate in front of an API that we did not write
// and that knows nothing of it. What passes must pass untouched.
func TestRealAPI(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, httpbin.New().ServeHTTP)
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise"})
	k := g.newKey("anything", "--permissions", "read:all")

	t.Run("nothing without a key", func(t *testing.T) {
		before := api.count.Load()
		g.refused(http.StatusUnauthorized, "API key is missing", "/get", "")
		if api.count.Load() != before {
			t.Error("the upstream was asked")
		}
	})
	t.Run("who is asking", func(t *testing.T) { testIdentity(t, g, k) })
	t.Run("methods and bodies", func(t *testing.T) {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"} {
			body := method + " " + private
			a := g.do(method, g.proxy+"/anything/x%20y", k.Secret, body, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
			var echo struct{ Method, Data, URL string }
			if err := json.Unmarshal([]byte(a.body), &echo); err != nil {
				t.Fatalf("%s: %d %s", method, a.status, a.body)
			}
			if echo.Method != method || echo.Data != body || !strings.HasSuffix(echo.URL, "/anything/x%20y") {
				t.Errorf("%s arrived as %+v", method, echo)
			}
		}
	})
	t.Run("OPTIONS", func(t *testing.T) {
		a := g.do(http.MethodOptions, g.proxy+"/get", k.Secret, "")
		if a.status != http.StatusOK || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "PATCH") {
			t.Errorf("%d %v", a.status, a.header)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		a := g.do(http.MethodHead, g.proxy+"/head", k.Secret, "")
		if a.status != http.StatusOK || a.body != "" || a.header.Get("Content-Type") == "" {
			t.Errorf("%d %v %q", a.status, a.header, a.body)
		}
	})
	t.Run("statuses", func(t *testing.T) {
		for path, status := range map[string]int{"/status/418": 418, "/status/500": 500, "/status/401": 401, "/status/204": 204} {
			g.wants(status, path, k.Secret)
		}
	})
	t.Run("query byte for byte", func(t *testing.T) {
		// Neither is this a query that Go can parse, nor is it in the order of a map.
		const query = "z=1&a=%2f;b=2&&c=d+e&%zz&" + private
		g.get("/anything?"+query, k.Secret)
		if got := api.seen().URL.RawQuery; got != query {
			t.Errorf("the upstream got the query %q", got)
		}
	})
	t.Run("encodings are between client and upstream", func(t *testing.T) {
		a := g.wants(http.StatusOK, "/gzip", k.Secret, func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") })
		z, err := gzip.NewReader(strings.NewReader(a.body))
		if err != nil || a.header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("%v; %v", err, a.header)
		}
		if plain, err := io.ReadAll(z); err != nil || !json.Valid(plain) {
			t.Errorf("%v: %s", err, plain)
		}
	})
	t.Run("streams", func(t *testing.T) {
		a := g.wants(http.StatusOK, "/stream/10", k.Secret)
		if n := strings.Count(a.body, "\n"); n != 10 {
			t.Errorf("%d lines", n)
		}
		a = g.wants(http.StatusOK, "/drip?numbytes=20&duration=500ms&delay=0", k.Secret)
		if a.body != strings.Repeat("*", 20) {
			t.Errorf("dripped %q", a.body)
		}
	})
	t.Run("redirects are the client's matter", func(t *testing.T) {
		a := g.wants(http.StatusFound, "/redirect/1", k.Secret)
		if to := a.header.Get("Location"); to != "/get" {
			t.Errorf("Location %q", to)
		}
	})
	t.Run("1 MiB each way", func(t *testing.T) { testLargeBodies(t, g, k) })
	t.Run("trailers", func(t *testing.T) {
		r, err := http.NewRequest(http.MethodGet, g.proxy+"/trailers?X-End=yes", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+k.Secret)
		resp, err := newClient(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Trailer.Get("X-End") != "yes" {
			t.Errorf("%v; trailers %v", err, resp.Trailer)
		}
	})
}

// testIdentity: the upstream learns from keygate who asks, and from nobody else.
func testIdentity(t *testing.T, g *gateway, k admin.CreatedKey) {
	a := g.wants(http.StatusOK, "/headers", k.Secret, func(r *http.Request) {
		r.Header["X-Keygate-Organization"] = []string{"someone-else"}
		r.Header["x_keygate_scopes"] = []string{"everything"}
		r.Header["X-Keygate-Nonsense"] = []string{"yes"}
		r.Header["X-Forwarded-For"] = []string{"203.0.113.9"}
		r.Header["X-Request-Id"] = []string{"mine"}
		r.Header["X-Own"] = []string{private}
		r.Header["Connection"] = []string{"X-Keygate-Key-Id"}
	})
	var seen struct{ Headers http.Header }
	if err := json.Unmarshal([]byte(a.body), &seen); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for name, values := range seen.Headers {
		if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "x-") {
			got[name] = strings.Join(values, " | ")
		}
	}
	var org admin.Organization
	g.must(&org, "orgs", "get", "default")
	want := map[string]string{
		"X-Keygate-Key-Id": k.ID, "X-Keygate-Account": k.Account, "X-Keygate-Organization": org.ID, "X-Keygate-Organization-Slug": "default",
		"X-Keygate-Scopes": "read:all", "X-Keygate-Plan": "enterprise", "X-Request-Id": a.header.Get("X-Request-Id"),
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": strings.TrimPrefix(g.proxy, "http://"), "X-Forwarded-Proto": "http", "X-Own": private,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if key := seen.Headers.Get("Authorization"); key != "" {
		t.Error("the upstream got the key")
	}
	if got["X-Request-Id"] == "" || got["X-Request-Id"] == "mine" {
		t.Errorf("request id %q", got["X-Request-Id"])
	}
}

func testLargeBodies(t *testing.T, g *gateway, k admin.CreatedKey) {
	const size = 1 << 20
	a := g.wants(http.StatusOK, "/range/1048576", k.Secret)
	if len(a.body) != size || a.body[:26] != "abcdefghijklmnopqrstuvwxyz" {
		t.Errorf("%d bytes came down", len(a.body))
	}
	for name, body := range map[string]io.Reader{
		"of known length": strings.NewReader(a.body),
		"in chunks":       struct{ io.Reader }{bytes.NewReader([]byte(a.body))},
	} {
		up, err := try(newClient(t), http.MethodPost, g.proxy+"/post", k.Secret, body, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") })
		if err != nil {
			t.Fatal(err)
		}
		var echo struct{ Data string }
		if err := json.Unmarshal([]byte(up.body), &echo); err != nil || echo.Data != a.body {
			t.Errorf("a body %s: %v; %d bytes came back as they went", name, err, len(echo.Data))
		}
	}
}
