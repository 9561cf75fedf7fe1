package keys

import (
	"testing"
	"time"
)

func TestParseExpiry(t *testing.T) {
	now := time.Date(2028, time.February, 29, 13, 0, 0, 0, time.UTC)
	for in, want := range map[string]string{
		"":                               "never",
		"never":                          "never",
		"1d":                             "2028-03-01T13:00:00Z",
		"30d":                            "2028-03-30T13:00:00Z",
		"90d":                            "2028-05-29T13:00:00Z",
		"1y":                             "2029-03-01T13:00:00Z", // a leap day has no anniversary
		"4y":                             "2032-02-29T13:00:00Z",
		"2028-02-29":                     "2028-03-01T00:00:00Z", // to the end of the day
		"2031-12-31":                     "2032-01-01T00:00:00Z",
		"2028-02-29T13:00:01Z":           "2028-02-29T13:00:01Z",
		"2028-02-29T12:00:00-02:00":      "2028-02-29T14:00:00Z",
		"2028-02-29T13:00:00.123456789Z": "2028-02-29T13:00:00.123456Z",
		"2028-02-28":                     "error",
		"2028-02-29T13:00:00Z":           "error", // now is not the future
		"0d":                             "error",
		"-1d":                            "error",
		"+1d":                            "error",
		"1":                              "error",
		"1w":                             "error",
		"1dy":                            "error",
		"01d":                            "error",
		"99999999d":                      "error",
		"2028-02-30":                     "error",
		"9999-12-31":                     "error", // ends in a year that RFC 3339 cannot write
		"tomorrow":                       "error",
	} {
		at, err := ParseExpiry(in, now)
		got := at.Format(time.RFC3339Nano)
		switch {
		case err != nil:
			got = "error"
		case at.IsZero():
			got = "never"
		}
		if got != want {
			t.Errorf("%q: %s (%v), want %s", in, got, err, want)
		}
	}
}

func FuzzParseExpiry(f *testing.F) {
	now := time.Date(2028, time.February, 29, 13, 0, 0, 0, time.UTC)
	for _, s := range []string{"30d", "1y", "2031-05-31", "2031-05-31T12:00:00+14:00", "never", "9y9d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := ParseExpiry(s, now)
		if err == nil && !at.IsZero() && (!at.After(now) || at.Year() > 9999 || at.Location() != time.UTC) {
			t.Errorf("%q ends at %s", s, at)
		}
	})
}
