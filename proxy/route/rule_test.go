package route_test

import (
	"testing"
	"time"

	"keygate/proxy/route"
)

func TestWordsOfThePolicyFile(t *testing.T) {
	for per, want := range map[time.Duration]string{
		time.Second: "5/1s", 90 * time.Second: "5/1m30s", time.Minute: "5/1m", time.Hour: "5/1h", 90 * time.Minute: "5/1h30m",
		24 * time.Hour: "5/24h", time.Hour + time.Second: "5/1h0m1s", 10 * time.Minute: "5/10m", 20 * time.Second: "5/20s", 250 * time.Millisecond: "5/250ms",
	} {
		if got := (route.Budget{Requests: 5, Per: per}).String(); got != want {
			t.Errorf("%s: %q, want %q", per, got, want)
		}
	}
	for want, b := range map[string]route.Binding{
		"path:org": {Source: route.FromPath, Name: "org"}, "header:X-Org": {Source: route.FromHeader, Name: "X-Org"}, "query:org": {Source: route.FromQuery, Name: "org"},
	} {
		if got := b.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
