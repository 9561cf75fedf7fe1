package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"keygate/internal/keys"
	"keygate/internal/problem"
	"keygate/proxy/route"
	"keygate/ratelimit"
)

// A key can ask about itself at mePath. All that starts with reserved is
// keygate's own: it comes before the routes and is never forwarded.
const (
	reserved = "/.keygate/"
	mePath   = reserved + "me"
)

const (
	// Each answer may cost a round trip to the ledger, so that a key gets only so
	// many; how many keys are told apart is bounded too.
	meRequests = 10
	mePer      = time.Second
	maxMeKeys  = 16_384
	// meTimeout bounds what an answer waits for the state of the limits.
	meTimeout = 250 * time.Millisecond
)

// me answers keys that ask about themselves.
type me struct {
	rule   *rule
	budget *ratelimit.Buckets
}

func newMe(now func() time.Time) *me {
	budget, err := ratelimit.NewBuckets(ratelimit.BucketOptions{Requests: meRequests, Per: mePer, Max: maxMeKeys, Now: now})
	if err != nil {
		panic("proxy: " + err.Error()) // the options are constants
	}
	return &me{rule: &rule{Rule: &route.Rule{Any: true}, name: mePath}, budget: budget}
}

// isOwn reports whether a request is keygate's to answer.
func (x *exchange) isOwn() bool {
	return x.proxy.me != nil && strings.HasPrefix(x.r.URL.Path, reserved)
}

func (x *exchange) findOwn() (*rule, *refusal) {
	switch {
	case x.r.URL.Path != mePath:
		return nil, x.noRoute()
	case x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		return nil, methodsAllowed("GET, HEAD")
	}
	return x.proxy.me.rule, nil
}

// asksAboutItself reports whether the request is one that keygate answers.
func (x *exchange) asksAboutItself() bool { return x.proxy.me != nil && x.rule == x.proxy.me.rule }

// look lets a key that was found see itself, and looks at its limits without
// spending anything. Where they cannot be asked for, the answer does without
// them.
func (p *Proxy) look(x *exchange, known int64) *refusal {
	if refused := x.principal.AcceptsAddress(x.client); refused != nil {
		return x.refused(refused)
	}
	if ok, wait := p.me.budget.Allow(x.principal.Key.ID); !ok {
		return overMeBudget(wait)
	}
	if len(x.principal.Plan.Limits) == 0 {
		return nil
	}
	x.askFor(known)
	ctx, cancel := context.WithTimeout(x.r.Context(), meTimeout)
	defer cancel()
	x.limits, x.cause = p.limiter.Peek(ctx, &x.ask)
	return nil
}

func overMeBudget(retryAfter time.Duration) *refusal {
	wait := max(1, int64((retryAfter+time.Second-1)/time.Second))
	return &refusal{decision: limited, retryAfter: wait, problem: problem.Problem{
		Type: problem.TypeQuotaExceeded, Status: http.StatusTooManyRequests, Error: "Rate limit exceeded",
		Detail: fmt.Sprintf("An API key may ask about itself %d times per %s. Wait %s before the next request.",
			meRequests, spell(mePer), spell(time.Duration(wait)*time.Second)),
		ViolatedPolicies: []string{"me"},
	}}
}

// aboutMe is what a key may know about itself.
type aboutMe struct {
	Key struct {
		ID              string    `json:"id"`
		Name            string    `json:"name"`
		Prefix          string    `json:"prefix"`
		LastFour        string    `json:"last_four"`
		Status          string    `json:"status"`
		ExpiresAt       time.Time `json:"expires_at,omitzero"`
		SecretExpiresAt time.Time `json:"secret_expires_at,omitzero"`
	} `json:"key"`
	Organization *aboutPlace         `json:"organization,omitempty"`
	Space        *aboutPlace         `json:"space,omitempty"`
	Plan         string              `json:"plan,omitempty"`
	Scopes       []string            `json:"scopes"`
	SpaceScopes  map[string][]string `json:"space_scopes,omitempty"`
	Limits       []aboutLimit        `json:"limits"`
	// Concurrent is how many requests may be in flight; left out for any number.
	Concurrent int64 `json:"concurrent,omitempty"`
}

type aboutPlace struct {
	ID   string `json:"id"`
	Slug string `json:"slug"`
}

// aboutLimit has the state only where the ledger told it.
type aboutLimit struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	// Per is a duration such as 1m, or day or month in a time zone.
	Per       string `json:"per"`
	Timezone  string `json:"timezone,omitempty"`
	Shared    bool   `json:"shared,omitempty"`
	Remaining *int64 `json:"remaining,omitempty"`
	// ResetSeconds is how long until Remaining grows; 0 if nothing was spent.
	ResetSeconds *int64 `json:"reset_seconds,omitempty"`
}

// answerMe tells the key about itself.
func (x *exchange) answerMe() {
	body, err := json.Marshal(x.aboutMe())
	if err != nil {
		panic("proxy: " + err.Error()) // strings, numbers and times of four-digit years always marshal
	}
	body = append(body, '\n')
	h := x.w.Header()
	x.ignoreBody()
	x.describe(h)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	x.WriteHeader(http.StatusOK)
	if x.r.Method != http.MethodHead {
		_, _ = x.Write(body) // the client may have gone
	}
}

func (x *exchange) aboutMe() *aboutMe {
	p := x.principal
	about := &aboutMe{Plan: p.Plan.Name, Limits: x.aboutLimits(), Concurrent: p.Plan.Concurrent}
	k := &about.Key
	k.ID, k.Name, k.Prefix, k.LastFour = p.Key.ID, p.Key.Name, p.Secret.Prefix, p.Secret.LastFour
	k.Status = string(keys.Active) // or it would have been refused
	k.ExpiresAt, k.SecretExpiresAt = p.Key.ExpiresAt(), p.Secret.EndsAt()
	if p.Organization != nil {
		about.Organization = &aboutPlace{p.Organization.ID, p.Organization.Slug}
	}
	if space := p.Space(); space != nil {
		about.Space = &aboutPlace{space.ID, space.Slug}
	}
	about.Scopes, about.SpaceScopes = p.Scopes()
	return about
}

func (x *exchange) aboutLimits() []aboutLimit {
	limits := make([]aboutLimit, len(x.principal.Plan.Limits))
	for i, l := range x.principal.Plan.Limits {
		per, zone := l.Terms()
		limits[i] = aboutLimit{Name: l.Name, Requests: l.Quota, Per: per, Timezone: zone, Shared: l.Shared}
		if i < len(x.limits.Limits) {
			remaining, reset := ratelimit.Shown(x.limits, i)
			limits[i].Remaining, limits[i].ResetSeconds = &remaining, &reset
		}
	}
	return limits
}

// short writes a duration as policy files do: 1m, 24h, 90s.
func short(d time.Duration) string {
	per, _ := (&ratelimit.Limit{Per: d}).Terms()
	return per
}
