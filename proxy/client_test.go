package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestRequestIDsAreUUIDsInOrderOfTime(t *testing.T) {
	start := time.Date(2026, 2, 3, 4, 5, 6, 999_999_999, time.UTC)
	former := ""
	for _, after := range []time.Duration{0, 250 * time.Nanosecond, time.Microsecond, 999 * time.Microsecond, time.Millisecond, time.Hour} {
		at := start.Add(after)
		id, err := uuid.Parse(newRequestID(at))
		if err != nil {
			t.Fatal(err)
		}
		if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			t.Errorf("%s: version %d, %s", id, id.Version(), id.Variant())
		}
		if sec, nsec := id.Time().UnixTime(); !time.Unix(sec, nsec).Equal(at.Truncate(time.Millisecond)) {
			t.Errorf("%s: time %s, want %s", id, time.Unix(sec, nsec).UTC(), at)
		}
		if id.String() < former && after != 250*time.Nanosecond { // shorter than the fraction can tell
			t.Errorf("%s comes after %s", id, former)
		}
		former = id.String()
	}
	if a, b := newRequestID(start), newRequestID(start); a == b || strings.TrimPrefix(a, a[:18]) == strings.TrimPrefix(b, b[:18]) {
		t.Errorf("one instant: %s and %s", a, b)
	}
}

// TestNobodyIsVouchedFor: a trusted proxy that added an X-Forwarded-For of its own
// with nothing in it used to be passed over, and what the client had written before it
// was believed. FuzzForwardedFor found it.
func TestNobodyIsVouchedFor(t *testing.T) {
	peer := netip.MustParseAddr("10.0.0.1")
	p := &Proxy{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, nothing := range []string{"", " ", ",", "unknown"} {
		if client, _ := p.clientAddress(peer, http.Header{"X-Forwarded-For": {"203.0.113.9", nothing}}); client != peer {
			t.Errorf("after %q the client is %s", nothing, client)
		}
	}
}
