package test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/admin"
)

var twentyPolicy = regexp.MustCompile(`^"minute";q=20;w=60$`)

// Exactly the plan's number is admitted, however many clients ask at once.
func TestLimitUnderConcurrency(t *testing.T) {
	t.Parallel()
	const clients, each, quota = 50, 4, 20
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(api, tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	k := g.newKey("metered", "--plan", "twenty")
	bystander := g.newKey("bystander", "--plan", "twenty")

	answers := make(chan answer, clients*each)
	c := newClient(t)
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for range each {
				a, err := try(c, http.MethodGet, g.proxy+"/any", k.Secret, nil)
				if err != nil {
					t.Error(err)
				}
				answers <- a
			}
		})
	}
	all.Wait()
	close(answers)

	admitted := 0
	remaining := make(map[string]bool)
	for a := range answers {
		if !twentyPolicy.MatchString(a.header.Get("RateLimit-Policy")) {
			t.Fatalf("RateLimit-Policy: %s", a.header.Get("RateLimit-Policy"))
		}
		state := a.header.Get("RateLimit")
		switch a.status {
		case http.StatusOK:
			admitted++
			r, _, _ := strings.Cut(state, ";t=")
			if remaining[r] {
				t.Errorf("two admitted requests were told %s", r)
			}
			remaining[r] = true
		case http.StatusTooManyRequests:
			p := checkProblem(t, a, a.status, "Rate limit exceeded")
			wait := a.header.Get("Retry-After")
			if n, err := strconv.Atoi(wait); err != nil || n < 1 || n > 61 {
				t.Errorf("Retry-After: %q", wait)
			}
			if want := fmt.Sprintf(`"minute";r=0;t=%s`, wait); state != want {
				t.Errorf("RateLimit: %s, want %s", state, want)
			}
			if len(p.ViolatedPolicies) != 1 || p.ViolatedPolicies[0] != "minute" || p.Type != "https://iana.org/assignments/http-problem-types#quota-exceeded" || !strings.Contains(p.Detail, "20 requests per 1 minute") {
				t.Errorf("%+v", p)
			}
		default:
			t.Errorf("status %d: %s", a.status, a.body)
		}
	}
	if admitted != quota || api.count.Load() != quota {
		t.Errorf("%d of %d requests were admitted and %d reached the upstream, want %d", admitted, clients*each, api.count.Load(), quota)
	}
	g.wants(http.StatusOK, "/any", bystander.Secret) // limits count for each key
}

// Retry-After is a promise: whoever waits exactly that long gets in.
func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(api, tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	k := g.newKey("quick", "--plan", "quick")
	c := newClient(t)
	get := func() answer {
		a, err := try(c, http.MethodGet, g.proxy+"/any", k.Secret, nil)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for range 3 {
		admitted, a := 0, get()
		for ; a.status == http.StatusOK; a = get() {
			admitted++
		}
		refusedAt := time.Now()
		p := checkProblem(t, a, http.StatusTooManyRequests, "Rate limit exceeded")
		wait, err := strconv.Atoi(a.header.Get("Retry-After"))
		if err != nil || wait < 1 || wait > 3 {
			t.Fatalf("Retry-After: %q", a.header.Get("Retry-After"))
		}
		if len(p.ViolatedPolicies) != 1 || p.ViolatedPolicies[0] != "burst" {
			t.Errorf("violated %v", p.ViolatedPolicies)
		}
		time.Sleep(time.Until(refusedAt.Add(time.Duration(wait) * time.Second)))
		if a := get(); a.status != http.StatusOK {
			t.Fatalf("after %d requests and exactly the wait of %d s: %d %s", admitted, wait, a.status, a.body)
		}
	}
}

// A plan's number of keys holds also where they are made at the same time.
func TestNumberOfKeys(t *testing.T) {
	t.Parallel()
	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(api, tenantPolicy), "KEYGATE_DEFAULT_PLAN": "enterprise"})
	var org admin.Organization
	g.must(&org, "orgs", "create", "--slug", "pair", "--plan", "pair")
	c := newClient(t)
	made := make(chan admin.CreatedKey, 20)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			k, err := create(c, g.management, g.key, admin.NewKey{Name: fmt.Sprint("key ", i), Organization: "pair"})
			if err == nil {
				made <- k
			} else if !strings.Contains(err.Error(), "409") {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(made)
	if len(made) != 2 {
		t.Fatalf("%d keys were made, the plan has 2", len(made))
	}
	r := g.cli("keys", "create", "--name", "third", "--organization", "pair")
	if r.code != 4 || !strings.Contains(r.stderr, "2") {
		t.Errorf("a third key: %+v", r)
	}
	// One that is revoked makes room.
	if r := g.cli("keys", "revoke", (<-made).ID, "--yes"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	g.newKey("third", "--organization", "pair")
}
