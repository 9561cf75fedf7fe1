// Package clocktest makes what an operator or NTP makes of a machine's clock: times
// of which the wall clock has been set while the monotonic one has gone on.
package clocktest

import (
	"time"
	"unsafe"
)

// SetBack returns t with its wall clock set back by whole seconds and the monotonic
// reading that it had. It panics where t has none: time.Now and Add give one.
func SetBack(t time.Time, by time.Duration) time.Time {
	const hasMonotonic, nsecShift = 1 << 63, 30 // as type time.Time documents its field wall
	was := t
	parts := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	if parts.wall&hasMonotonic == 0 {
		panic("clocktest: a time without a monotonic reading")
	}
	parts.wall -= uint64(by/time.Second) << nsecShift
	if was.Sub(t) != 0 || was.Round(0).Sub(t.Round(0)) != by.Truncate(time.Second) {
		panic("clocktest: package time keeps its times in another way than this expects")
	}
	return t
}
