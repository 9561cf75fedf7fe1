package keys

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

const (
	maxLifetimeDays = 36_500
	maxYear         = 9999 // RFC 3339 has four digits, and encoding/json refuses more
)

// ParseExpiry reads when a key ends: "never" or "" (the zero time), a number of
// days ("30d") or of calendar years ("1y") from now, a date (valid to the end
// of that day, UTC) or an instant (RFC 3339). It must lie in the future.
func ParseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "" || s == "never" {
		return time.Time{}, nil
	}
	at, err := parseExpiry(s, now)
	if err != nil {
		return time.Time{}, err
	}
	if !at.After(now) {
		return time.Time{}, errors.New("must lie in the future; " + at.UTC().Format(time.RFC3339) + " is past")
	}
	if at = at.UTC(); at.Year() > maxYear {
		return time.Time{}, errors.New("must lie before the year 10000; \"never\" is for good")
	}
	return at.Truncate(time.Microsecond), nil
}

// ParseLifetime reads how long an expiry was set for: a number of days ("30d"),
// or a duration in Go's form ("12h30m").
func ParseLifetime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	}
	if d = d.Truncate(time.Microsecond); err != nil || d <= 0 {
		return 0, errors.New(`must be days such as "90d", or a duration such as "12h30m"`)
	}
	return d, nil
}

func parseExpiry(s string, now time.Time) (time.Time, error) {
	if n, err := strconv.Atoi(strings.TrimRight(s, "dy")); err == nil && n > 0 && len(s) == len(strconv.Itoa(n))+1 {
		switch {
		case s[len(s)-1] == 'd' && n <= maxLifetimeDays:
			return now.Add(time.Duration(n) * 24 * time.Hour), nil
		case s[len(s)-1] == 'y' && n <= maxLifetimeDays/365:
			return now.AddDate(n, 0, 0), nil
		}
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	return time.Time{}, errors.New(`must be "never", days such as "30d", years such as "1y", a date such as "2031-05-31" (to the end of that day, UTC) or an instant such as "2031-05-31T12:00:00Z"`)
}
