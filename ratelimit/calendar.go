package ratelimit

import (
	"fmt"
	"time"
)

// Period is a stretch of the calendar that a quota is counted in.
type Period uint8

const (
	NoPeriod Period = iota // a sliding window
	Day
	Month
)

func (p Period) String() string {
	switch p {
	case Day:
		return "day"
	case Month:
		return "month"
	}
	return ""
}

// ParsePeriod reads what String writes.
func ParsePeriod(s string) (p Period, ok bool) {
	switch s {
	case "day":
		return Day, true
	case "month":
		return Month, true
	}
	return NoPeriod, false
}

// LongestPeriod bounds a calendar period: a month of 31 days, and what a change
// of a zone's offset can add to it.
const LongestPeriod = 33 * 24 * time.Hour

// In returns a calendar quota with the period that t is in, and the end of the
// one after it; other limits as they are. A period begins with the first instant
// at which the calendar of the zone shows its first day: in some zones midnight
// is left out or comes twice when clocks change, and whole days have been skipped.
func (l Limit) In(t time.Time) Limit {
	if l.Period == NoPeriod {
		return l
	}
	year, month, day := t.In(l.zone()).Date()
	if l.Period == Month {
		day = 1
	}
	begins := func(n int) time.Time { // of the n-th period from now
		if l.Period == Month {
			return firstOf(year, month+time.Month(n), 1, l.zone())
		}
		return firstOf(year, month, day+n, l.zone())
	}
	n := 0
	for t.Before(begins(n)) {
		n--
	}
	for !t.Before(begins(n + 1)) { // where the clock went back over the day's beginning
		n++
	}
	l.Start, l.End = begins(n), begins(n+1)
	for n += 2; ; n++ {
		if l.NextEnd = begins(n); l.NextEnd.After(l.End) { // a skipped day has no length
			return l
		}
	}
}

// Contains reports whether In would give the same period again.
func (l *Limit) Contains(t time.Time) bool {
	return l.Period == NoPeriod || !t.Before(l.Start) && t.Before(l.End)
}

func (l *Limit) zone() *time.Location {
	if l.Zone == nil {
		return time.UTC
	}
	return l.Zone
}

// firstOf is the first instant at which a zone's calendar shows a day or a later
// one. Within a stretch of constant offset that is plain arithmetic.
func firstOf(year int, month time.Month, day int, zone *time.Location) time.Time {
	utc := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
	t := utc.Add(-36 * time.Hour).In(zone) // offsets are less than a day
	for {
		from, to := t.ZoneBounds()
		_, offset := t.Zone()
		first := utc.Add(-time.Duration(offset) * time.Second)
		if first.Before(from) {
			first = from
		}
		if to.IsZero() || first.Before(to) {
			return first.In(zone)
		}
		t = to
	}
}

// checkPeriod reports a calendar quota whose period nobody has set.
func (l *Limit) checkPeriod() error {
	if l.Start.UnixMicro() <= 0 || !l.Start.Before(l.End) || !l.End.Before(l.NextEnd) || l.NextEnd.Sub(l.Start) > 2*LongestPeriod {
		return fmt.Errorf("limit %q of %q: period from %s to %s and %s", l.Name, l.Holder, l.Start, l.End, l.NextEnd)
	}
	return nil
}

// Present picks the period that the ledger's time is in, by the boundaries that
// an ask brought along, all in microseconds: its beginning, its end, and the end
// of the next one. The beginning is later than now where the boundaries do not
// tell it. ok is false where the asker's clock is behind by more than a period.
func (l *Limit) Present(now int64) (begin, end, next int64, ok bool) {
	switch a, b, c := l.Start.UnixMicro(), l.End.UnixMicro(), l.NextEnd.UnixMicro(); {
	case now < a:
		return a, a, b, true
	case now < b:
		return a, b, c, true
	case now < c:
		return b, c, c + LongestPeriod.Microseconds(), true
	}
	return 0, 0, 0, false
}
