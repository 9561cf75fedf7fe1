package cli

import (
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
