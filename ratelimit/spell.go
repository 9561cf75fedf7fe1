package ratelimit

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Terms writes what a limit counts in, as policies do: "90s", "1m", "24h" or "day"
// and "month" with their time zone.
func (l *Limit) Terms() (per, zone string) {
	if l.Period != NoPeriod {
		return l.Period.String(), l.zone().String()
	}
	per = l.Per.String()
	for _, zero := range [...]string{"m0s", "h0m"} {
		if strings.HasSuffix(per, zero) {
			per = per[:len(per)-2]
		}
	}
	return per, ""
}

// SetTerms sets what a limit counts in; the zone may be empty, which is UTC. It
// does not judge a duration: Validate does.
func (l *Limit) SetTerms(per, zone string) error {
	location, err := ParseZone(zone)
	if err != nil {
		return err
	}
	l.Per, l.Period, l.Zone = 0, NoPeriod, nil
	if period, ok := ParsePeriod(per); ok {
		l.Period, l.Zone = period, location
		return nil
	}
	if l.Per, err = time.ParseDuration(per); err != nil {
		return fmt.Errorf("%q is neither a duration such as 1m and 24h, nor day or month", per)
	}
	if zone != "" {
		return errors.New("a time zone is allowed only with day and month")
	}
	return nil
}

// ParseZone finds a time zone by its name in the IANA database; "" is UTC.
func ParseZone(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("%q is no time zone; allowed are names such as Europe/Zurich and UTC", name)
	}
	return zone, nil
}
