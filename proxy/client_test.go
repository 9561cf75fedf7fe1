package proxy

import (
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
