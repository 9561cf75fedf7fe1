package ratelimit

import (
	"strconv"
	"time"
)

// AppendPolicy appends the value of the RateLimit-Policy field
// (draft-ietf-httpapi-ratelimit-headers): one item for each limit, q its quota
// and w its window in seconds. A calendar period has no fixed window and omits w.
func AppendPolicy(dst []byte, limits []Limit) []byte {
	for i := range limits {
		l := &limits[i]
		dst = appendName(dst, i, l.Name)
		dst = append(dst, ";q="...)
		dst = strconv.AppendInt(dst, l.Quota, 10)
		if l.Per > 0 {
			dst = append(dst, ";w="...)
			dst = strconv.AppendInt(dst, seconds(l.Per), 10)
		}
	}
	return dst
}

// AppendState appends the value of the RateLimit field: r is what remains, t
// the seconds, rounded up, until r next grows; omitted while nothing is spent.
// A violated limit has r=0, also if a smaller request would still fit, and the
// t of Retry-After: a client may go by either field and be right.
func AppendState(dst []byte, d Decision) []byte {
	for i := range d.Limits {
		remaining, wait := Shown(d, i)
		dst = appendName(dst, i, d.Limits[i].Name)
		dst = append(dst, ";r="...)
		dst = strconv.AppendInt(dst, remaining, 10)
		if wait > 0 {
			dst = append(dst, ";t="...)
			dst = strconv.AppendInt(dst, wait, 10)
		}
	}
	return dst
}

// Shown is what a client is told of the i-th limit: what remains, and the
// seconds until that grows; 0 while nothing is spent. They may be more than the
// window has, by τ at most: units are charged until a window after the last moment
// at which they may have been spent.
func Shown(d Decision, i int) (remaining, wait int64) {
	s := &d.Limits[i]
	if s.Violated && !d.Allowed {
		return 0, RetryAfterSeconds(d)
	}
	if s.Remaining < s.Quota {
		wait = max(1, seconds(s.NextUnit))
	}
	return s.Remaining, wait
}

// RetryAfterSeconds is the value of the Retry-After field: whole seconds,
// rounded up, at least 1.
func RetryAfterSeconds(d Decision) int64 {
	return max(1, seconds(d.RetryAfter))
}

// appendName appends a name as a structured-field string. Limit.Validate lets
// only such names pass as need no escape.
func appendName(dst []byte, i int, name string) []byte {
	if i > 0 {
		dst = append(dst, ", "...)
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"')
}

func seconds(d time.Duration) int64 {
	n := int64(d / time.Second)
	if d%time.Second > 0 {
		n++
	}
	return n
}
