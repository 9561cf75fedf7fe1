package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keygate/internal/problem"
)

func (in *instance) client() *Client {
	u, err := url.Parse(in.server.URL)
	if err != nil {
		in.t.Fatal(err)
	}
	return &Client{URL: u, Key: in.key, UserAgent: "test"}
}

func TestClientDoesIt(t *testing.T) {
	t.Parallel()
	in := start(t)
	c, ctx := in.client(), t.Context()
	org, err := c.CreateOrganization(ctx, NewOrganization{Slug: "acme", Plan: "pro"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetOrganization(ctx, "acme"); err != nil || !reflect.DeepEqual(got, org) {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := c.CreateSpace(ctx, NewSpace{Organization: "acme", Slug: "research"}); err != nil {
		t.Error(err)
	}
	account, err := c.CreateAccount(ctx, NewAccount{Name: "Ada", Organization: "acme", Role: "owner"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := c.CreateKey(ctx, NewKey{Name: "a", Organization: "acme", Space: "research", Account: account.ID, Expires: "1y"})
	if err != nil || !in.format.Valid(k.Secret) {
		t.Fatal(k, err)
	}
	if got, err := c.GetKey(ctx, k.ID); err != nil || got.ID != k.ID || !got.ExpiresAt.Equal(k.ExpiresAt) {
		t.Errorf("%+v %v", got, err)
	}
	for status, change := range map[string]func(context.Context, string) (Key, error){"paused": c.PauseKey} {
		if got, err := change(ctx, k.ID); err != nil || got.Status != status {
			t.Errorf("%+v %v", got, err)
		}
	}
	if got, err := c.ResumeKey(ctx, k.ID); err != nil || got.Status != "active" {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := c.RevokeKey(ctx, k.ID); err != nil || got.Status != "revoked" {
		t.Errorf("%+v %v", got, err)
	}
	for i := range 4 {
		if _, err := c.CreateKey(ctx, NewKey{Name: fmt.Sprint(i), Organization: "acme"}); err != nil {
			t.Fatal(err)
		}
	}
	for most, want := range map[int]int{0: 5, 2: 2, 9: 5} {
		all, err := All(ctx, ListOptions{Organization: "acme"}, most, c.ListKeys)
		if err != nil || len(all) != want {
			t.Errorf("at most %d: %d keys, %v", most, len(all), err)
		}
	}
	if orgs, err := c.ListOrganizations(ctx, ListOptions{Limit: 1}); err != nil || len(orgs.Items) != 1 || orgs.Next == "" {
		t.Errorf("%+v %v", orgs, err)
	}
	if spaces, err := c.ListSpaces(ctx, ListOptions{Organization: "acme"}); err != nil || len(spaces.Items) != 1 {
		t.Errorf("%+v %v", spaces, err)
	}
	if accounts, err := c.ListAccounts(ctx, ListOptions{Organization: "acme"}); err != nil || len(accounts.Items) != 2 {
		t.Errorf("%+v %v", accounts, err)
	}
	if err := c.DeleteKey(ctx, k.ID); err != nil {
		t.Error(err)
	}
	var refused *APIError
	if _, err := c.GetKey(ctx, k.ID); !errors.As(err, &refused) || refused.Status != http.StatusNotFound || refused.Problem.Error != "Not found" {
		t.Errorf("a deleted key: %v", err)
	}
	for _, odd := range []string{"", ".", "..", "a/b", "a?b", "%2e%2e", "../organizations"} {
		if _, err := c.GetKey(ctx, odd); !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
			t.Errorf("key %q: %v", odd, err)
		}
	}
}

func TestClientGuardsTheKey(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "[::1]": true, "localhost": true, "LOCALHOST.": true, "kg.localhost": true, "[::ffff:127.0.0.1]": true,
		"keygate": false, "192.0.2.1": false, "localhost.example.com": false, "127.0.0.1.example.com": false, "0.0.0.0": false,
	} {
		if got := loopback((&url.URL{Host: host}).Hostname()); got != want {
			t.Errorf("loopback(%s) = %v", host, got)
		}
	}
	reached := 0
	transport := roundTrip(func(*http.Request) (*http.Response, error) {
		reached++
		return nil, errors.New("not here")
	})
	c := &Client{URL: &url.URL{Scheme: "http", Host: "keygate:9090"}, Key: "k", HTTP: &http.Client{Transport: transport}}
	var insecure *InsecureError
	if _, err := c.ListKeys(t.Context(), ListOptions{}); !errors.As(err, &insecure) || reached != 0 {
		t.Errorf("%v, %d requests sent", err, reached)
	}
	var unreachable *UnreachableError
	for _, allowed := range []*Client{
		{URL: c.URL, Key: "k", HTTP: c.HTTP, Insecure: true},
		{URL: &url.URL{Scheme: "https", Host: "keygate:9090"}, Key: "k", HTTP: c.HTTP},
	} {
		if _, err := allowed.ListKeys(t.Context(), ListOptions{}); !errors.As(err, &unreachable) {
			t.Error(err)
		}
	}
	if reached != 2 {
		t.Errorf("%d requests sent", reached)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClientFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var stolen string
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen = r.Header.Get("Authorization") }))
	defer thief.Close()
	s := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	u, _ := url.Parse(s.URL)
	_, err := (&Client{URL: u, Key: "k"}).CreateKey(t.Context(), NewKey{})
	var answer *APIError
	if !errors.As(err, &answer) || answer.Status != http.StatusTemporaryRedirect || stolen != "" {
		t.Errorf("%v; the other server got %q", err, stolen)
	}
}

func TestClientTakesOnlyAnswersOfTheAPI(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"a page":           func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"a page not found": func(w http.ResponseWriter, _ *http.Request) { http.NotFound(w, nil) },
		"half an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"items":[`)
		},
		"an empty problem": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", problem.ContentType)
			w.WriteHeader(502)
		},
		"no content at all": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(h)
			defer s.Close()
			u, _ := url.Parse(s.URL)
			_, err := (&Client{URL: u, Key: "k"}).ListKeys(t.Context(), ListOptions{})
			var answer *APIError
			if !errors.As(err, &answer) || !strings.Contains(err.Error(), "not one of keygate's management API") || answer.Problem.Error != "" {
				t.Errorf("%v", err)
			}
			// A deletion was reported as done, whatever answered with success.
			if err := (&Client{URL: u, Key: "k"}).DeleteKey(t.Context(), "key_1"); !errors.As(err, &answer) || !strings.Contains(err.Error(), "not one of keygate's management API") {
				t.Errorf("a deletion: %v", err)
			}
		})
	}
}

func TestClientWaitsForTheLimit(t *testing.T) {
	t.Parallel()
	limited := func(times, seconds int) (*Client, *int) {
		tries := new(int)
		return &Client{URL: &url.URL{Scheme: "https", Host: "kg"}, Key: "k", HTTP: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			if *tries++; *tries <= times {
				w.Header().Set("Retry-After", fmt.Sprint(seconds))
				problem.Write(w, &problem.Problem{Status: http.StatusTooManyRequests, Error: "Rate limit exceeded"})
			} else {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"items":[]}`)
			}
			return w.Result(), nil
		})}}, tries
	}
	synctest.Test(t, func(t *testing.T) {
		c, tries := limited(3, 2)
		begin := time.Now()
		if _, err := c.ListKeys(t.Context(), ListOptions{}); err != nil || *tries != 4 || time.Since(begin) != 6*time.Second {
			t.Errorf("%v after %d tries and %v", err, *tries, time.Since(begin))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, tries := limited(100, 3)
		begin := time.Now()
		var refused *APIError
		if _, err := c.ListKeys(t.Context(), ListOptions{}); !errors.As(err, &refused) || refused.Status != 429 || *tries != 4 || time.Since(begin) > maxWait {
			t.Errorf("%v after %d tries and %v", err, *tries, time.Since(begin))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, _ := limited(100, 3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.ListKeys(ctx, ListOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestClientErrorsHoldNoKey(t *testing.T) {
	t.Parallel()
	c := &Client{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Key: "kg_live_hidden"}
	_, err := c.GetKey(t.Context(), "key_1")
	if err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), "hidden") {
		t.Errorf("%+v", err)
	}
}

// Two people who read a key and edit it undo each other's work, unless the client
// can say which version it means.
func TestClientEditsTheVersionItRead(t *testing.T) {
	t.Parallel()
	in := start(t)
	c, ctx := in.client(), t.Context()
	made, err := c.CreateKey(ctx, NewKey{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	read, err := c.GetKey(ctx, made.ID)
	if err != nil || read.Version() != 1 || made.Version() != 1 {
		t.Fatalf("versions %d and %d, %v", made.Version(), read.Version(), err)
	}
	edited, err := c.With(IfVersion(read.Version())).EditKey(ctx, made.ID, KeyEdit{Name: new("b")})
	if err != nil || edited.Version() != 2 {
		t.Fatalf("version %d, %v", edited.Version(), err)
	}
	var refused *APIError
	if _, err := c.With(IfVersion(read.Version())).EditKey(ctx, made.ID, KeyEdit{Name: new("c")}); !errors.As(err, &refused) || refused.Status != http.StatusPreconditionFailed {
		t.Errorf("a stale edit: %v", err)
	}
	if _, err := c.EditKey(ctx, made.ID, KeyEdit{Name: new("d")}); err != nil {
		t.Errorf("the option went on to the next call: %v", err)
	}
}

// A connection that breaks after the request leaves the client not knowing: asked
// again, the API made a second key.
func TestClientRepeatsWhatBroke(t *testing.T) {
	t.Parallel()
	in := start(t)
	c, ctx := in.client(), t.Context()
	breaks := 1
	c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err == nil && breaks > 0 {
			breaks--
			resp.Body.Close()
			return nil, io.ErrUnexpectedEOF
		}
		return resp, err
	})}
	var unreachable *UnreachableError
	if _, err := c.With(IdempotencyKey("mine")).CreateKey(ctx, NewKey{Name: "a"}); !errors.As(err, &unreachable) {
		t.Fatalf("without Repeat: %v", err)
	}
	again, err := c.With(IdempotencyKey("mine")).CreateKey(ctx, NewKey{Name: "a"})
	if err != nil || !again.Replayed || again.Secret != "" || again.Version() != 1 {
		t.Errorf("%+v %v", again, err)
	}
	c.Repeat, breaks = true, 1
	if k, err := c.CreateKey(ctx, NewKey{Name: "b"}); err != nil || !k.Replayed || k.Secret != "" {
		t.Errorf("%+v %v", k, err)
	}
	if k, err := c.CreateKey(ctx, NewKey{Name: "c"}); err != nil || k.Replayed || k.Secret == "" {
		t.Errorf("%+v %v", k, err)
	}
	breaks = 2
	if _, err := c.CreateKey(ctx, NewKey{Name: "d"}); !errors.As(err, &unreachable) {
		t.Errorf("twice broken: %v", err)
	}
	breaks = 1
	if err := c.DeleteKey(ctx, again.ID); !errors.As(err, &unreachable) {
		t.Errorf("a deletion is not repeated: %v", err)
	}
	all, err := All(ctx, ListOptions{Organization: "default"}, 0, c.ListKeys)
	if err != nil || len(all) != 3 {
		t.Errorf("%d keys, %v", len(all), err)
	}
}
