package cli

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"keygate/internal/admin"
)

// What --limit takes is what lists show.
func TestParseLimit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]admin.OverrideLimit{
		"minute=5000/1m":                        {Name: "minute", Requests: 5000, Per: "1m0s"},
		"week=7/7d":                             {Name: "week", Requests: 7, Per: "168h0m0s"},
		"day=100/day":                           {Name: "day", Requests: 100, Per: "day"},
		"month=100000/month@Europe/Zurich":      {Name: "month", Requests: 100000, Per: "month", Timezone: "Europe/Zurich"},
		"org=5/1h:shared":                       {Name: "org", Requests: 5, Per: "1h0m0s", Shared: true},
		"month=9/month@America/New_York:shared": {Name: "month", Requests: 9, Per: "month", Timezone: "America/New_York", Shared: true},
	} {
		got, err := parseLimit(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		got.Per = strings.NewReplacer("168h0m0s", "7d", "1m0s", "1m", "1h0m0s", "1h").Replace(got.Per)
		if shown := shownLimits(&admin.Overrides{Limits: []admin.OverrideLimit{got}}); shown != text {
			t.Errorf("%s is shown as %s", text, shown)
		}
	}
	for _, text := range []string{"", "minute", "minute=5", "=5/1m", "minute=x/1m", "minute=5/week", "minute=5/1m@UTC", "month=5/month@", "minute=5/1m:private"} {
		if got, err := parseLimit(text); err == nil || !strings.Contains(err.Error(), "NAME=REQUESTS/PER") {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// Who edits one half of what was negotiated gives back the other half as it was read:
// what a second operator changed of that in between was undone without a word.
func TestTwoOperatorsNegotiate(t *testing.T) {
	t.Parallel()
	in := start(t)
	in.must("orgs", "create", "--slug", "acme", "--limit", "minute=10/1m", "--max-keys", "3")
	target, err := url.Parse(in.url)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	between := true
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch && between {
			between = false
			in.must("orgs", "edit", "acme", "--max-keys", "7")
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(slow.Close)
	env := []string{"KEYGATE_ADMIN_URL=" + slow.URL, "KEYGATE_ADMIN_KEY=" + in.key}
	if r := run(t, env, "orgs", "edit", "acme", "--limit", "minute=20/1m"); r.code != exitRefused || !strings.Contains(r.stderr, "Changed meanwhile") {
		t.Errorf("%+v", r)
	}
	if r := run(t, env, "orgs", "edit", "acme", "--limit", "minute=20/1m"); r.code != exitOK {
		t.Errorf("the second try: %+v", r)
	}
	if got := decoded[admin.Organization](t, in.must("orgs", "get", "acme", "-o", "json")).Overrides; *got.MaxKeys != 7 || got.Limits[0].Requests != 20 {
		t.Errorf("%+v", got)
	}
}
