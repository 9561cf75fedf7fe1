package ratelimit_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
)

func in(t *testing.T, zone string) *time.Location {
	t.Helper()
	loaded, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// Days that have 23 or 25 hours, that begin at 01:00 or twice, and that were left
// out; months of all lengths.
func TestPeriods(t *testing.T) {
	for _, test := range []struct {
		name               string
		period             ratelimit.Period
		zone, at           string
		start, end, follow string
	}{
		{"plain", ratelimit.Day, "UTC", "2026-11-28T15:04:05Z", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"first moment", ratelimit.Day, "UTC", "2026-11-28T00:00:00Z", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"},
		{"month", ratelimit.Month, "Europe/Zurich", "2026-11-30T23:30:00Z", "2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z", "2027-01-31T23:00:00Z"},
		{"leap year", ratelimit.Month, "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z", "2028-04-01T00:00:00Z"},
		{"month with a change", ratelimit.Month, "Europe/Zurich", "2026-03-10T00:00:00Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z"},
		{"23 hours", ratelimit.Day, "Europe/Zurich", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", "2026-03-30T22:00:00Z"},
		{"25 hours", ratelimit.Day, "America/New_York", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", "2026-11-03T05:00:00Z"},
		{"no midnight", ratelimit.Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", "2018-11-06T02:00:00Z"},
		{"midnight twice", ratelimit.Day, "America/Havana", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z", "2026-11-03T05:00:00Z"},
		{"back into yesterday", ratelimit.Day, "America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z", "2010-11-09T03:30:00Z"},
		{"before a day left out", ratelimit.Day, "Pacific/Apia", "2011-12-30T05:00:00Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"far east", ratelimit.Day, "Pacific/Kiritimati", "2026-11-28T10:30:00Z", "2026-11-28T10:00:00Z", "2026-11-29T10:00:00Z", "2026-11-30T10:00:00Z"},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		l := ratelimit.Limit{Period: test.period, Zone: in(t, test.zone)}.In(at)
		for i, pair := range [][2]string{
			{l.Start.UTC().Format(time.RFC3339), test.start},
			{l.End.UTC().Format(time.RFC3339), test.end},
			{l.NextEnd.UTC().Format(time.RFC3339), test.follow},
		} {
			if pair[0] != pair[1] {
				t.Errorf("%s: boundary %d is %s, want %s", test.name, i, pair[0], pair[1])
			}
		}
		if !l.Contains(at) || l.Contains(l.End) || l.Contains(l.Start.Add(-1)) {
			t.Errorf("%s: %+v", test.name, l)
		}
	}
}

// In any zone at any time periods follow each other without gap or overlap, and
// begin on the first day that the calendar shows.
func TestPeriodsFollowEachOther(t *testing.T) {
	zones := []string{"UTC", "Europe/Zurich", "America/New_York", "America/Sao_Paulo", "America/St_Johns", "Africa/Casablanca", "Asia/Beirut", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "Pacific/Kiritimati", "America/Havana"}
	rapid.Check(t, func(rt *rapid.T) {
		zone := in(t, rapid.SampledFrom(zones).Draw(rt, "zone"))
		l := ratelimit.Limit{Period: rapid.SampledFrom([]ratelimit.Period{ratelimit.Day, ratelimit.Month}).Draw(rt, "period"), Zone: zone}
		at := time.UnixMicro(rapid.Int64Range(1e15, 2e15).Draw(rt, "at"))
		l = l.In(at)
		if !l.Contains(at) || !l.End.Before(l.NextEnd) {
			rt.Fatalf("%s: %+v", at, l)
		}
		for _, edge := range []time.Time{l.Start, l.End.Add(-time.Microsecond)} {
			if same := l.In(edge); !same.Start.Equal(l.Start) || !same.End.Equal(l.End) {
				rt.Fatalf("at %s it is %+v, at %s %+v", at, l, edge, same)
			}
		}
		next := l.In(l.End)
		if !next.Start.Equal(l.End) || !next.End.Equal(l.NextEnd) {
			rt.Fatalf("after %+v comes %+v", l, next)
		}
		begin, before := l.End.In(zone), l.End.Add(-time.Nanosecond).In(zone)
		if begin.Day() == before.Day() && begin.Month() == before.Month() || l.Period == ratelimit.Month && begin.Day() != 1 {
			rt.Fatalf("%s begins a period", begin)
		}
		if n := l.NextEnd.Sub(l.Start); n > 66*24*time.Hour {
			rt.Fatalf("two periods of %s", n)
		}
	})
}

func TestTerms(t *testing.T) {
	for _, test := range []struct{ per, zone, wantPer, wantZone, err string }{
		{"1m", "", "1m", "", ""},
		{"90s", "", "1m30s", "", ""},
		{"24h", "", "24h", "", ""},
		{"day", "", "day", "UTC", ""},
		{"month", "Europe/Zurich", "month", "Europe/Zurich", ""},
		{"week", "", "", "", `"week" is neither a duration such as 1m and 24h, nor day or month`},
		{"1m", "UTC", "", "", "a time zone is allowed only with day and month"},
		{"day", "Local", "", "", `"Local" is no time zone; allowed are names such as Europe/Zurich and UTC`},
		{"day", "../etc", "", "", `"../etc" is no time zone; allowed are names such as Europe/Zurich and UTC`},
	} {
		l := ratelimit.Limit{Name: "x", Quota: 1}
		err := l.SetTerms(test.per, test.zone)
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%+v: %v", test, err)
			}
			continue
		}
		per, zone := l.Terms()
		if err != nil || per != test.wantPer || zone != test.wantZone || l.Validate() != nil {
			t.Errorf("%+v: %q, %q, %v, %v", test, per, zone, err, l.Validate())
		}
	}
}
