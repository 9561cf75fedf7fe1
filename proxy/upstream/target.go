package upstream

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// target is one place of an upstream, and what is known of it.
type target struct {
	index       int
	label       string // for metrics
	scheme      string // of requests: h2c is http
	h2c         bool
	host        string
	address     string // where it is dialled
	name        string // to look up; empty where the host is an address
	path, raw   string // what paths begin with there, decoded and as it is written
	twoVersions bool   // a connection may turn out to be HTTP/2

	inFlight atomic.Int64
	failures [reasons]atomic.Uint64

	ill      atomic.Bool  // the active checks say so
	inARow   atomic.Int32 // failures of requests
	until    atomic.Int64 // ejected until then, by the upstream's clock
	ejected  atomic.Int32 // times in a row
	ejection atomic.Uint64

	notices notices
}

// reason is what was wrong with a target's answer, as metrics name it.
type reason uint8

const (
	notConnected reason = iota
	timedOut
	brokenOff
	badAnswer // 502, 503 or 504: another gateway has no answer either
	reasons
)

var reasonNames = [reasons]string{"connect", "timeout", "broken", "status"}

// Passive health: a target is ejected, for ejectFor the first time and longer
// each time after, when ejectAfter requests in a row failed on it. Answers count
// only if they say that there is none: 500 may be one client's doing, who could
// else have all targets ejected, one by one.
const (
	ejectAfter = 5
	ejectFor   = 10 * time.Second
	ejectMost  = 2 * time.Minute
)

func newTarget(i int, at *url.URL) *target {
	t := &target{
		index: i, label: at.Redacted(), scheme: at.Scheme, h2c: at.Scheme == H2C, host: at.Host, address: dialAddress(at),
		path: strings.TrimSuffix(at.Path, "/"), raw: strings.TrimSuffix(at.EscapedPath(), "/"),
		twoVersions: at.Scheme != "http",
	}
	if t.h2c {
		t.scheme = "http"
	}
	if _, err := netip.ParseAddr(at.Hostname()); err != nil {
		t.name = at.Hostname()
	}
	return t
}

func (t *target) well(now int64) bool { return !t.ill.Load() && t.until.Load() <= now }

// answered notes that a request got an answer.
func (t *target) answered(clock func() int64) {
	if t.inARow.Load() != 0 {
		t.inARow.Store(0)
	}
	if t.ejected.Load() != 0 && t.until.Load() <= clock() && t.ejected.Swap(0) != 0 {
		t.notices.say(zapcore.InfoLevel, "an upstream's target answers requests again")
	}
}

// failed notes that a request got none, and ejects the target if it was one too
// many. The error is for the log.
func (u *Upstream) failed(t *target, why reason, err error) {
	t.failures[why].Add(1)
	if t.inARow.Add(1) < ejectAfter {
		return
	}
	if span := u.eject(t); span > 0 {
		t.notices.say(zapcore.WarnLevel, "an upstream's target is left alone: requests in a row failed on it",
			zap.Int("failures", ejectAfter), zap.String("reason", reasonNames[why]), zap.Duration("for", span), zap.Error(err))
	}
}

// eject leaves a target alone and returns for how long. More than half of the targets
// never are: then what fails is probably not the targets.
func (u *Upstream) eject(t *target) time.Duration {
	u.ejecting.Lock()
	defer u.ejecting.Unlock()
	now := u.clock()
	out := 1
	for _, other := range u.targets {
		if other.until.Load() > now {
			out++
		}
	}
	if t.until.Load() > now || 2*out > len(u.targets) {
		return 0
	}
	span := min(ejectFor<<min(t.ejected.Load(), 10), ejectMost)
	t.inARow.Store(0)
	t.ejected.Add(1)
	t.ejection.Add(1)
	t.until.Store(now + int64(span))
	return span
}

// Active checks: so many failures in a row make a target ill, so many successes
// well again.
const (
	illAfter  = 3
	wellAfter = 2
)

// watch checks a target until ctx ends. Checks are spread, so that the targets of
// many replicas are not all asked at once.
func (t *target) watch(ctx context.Context, every time.Duration, probe func(context.Context) error) {
	row := 0
	wait := rand.N(every)
	for sleep(ctx, wait) {
		wait = every - every/10 + rand.N(every/5+1)
		ctx, cancel := context.WithTimeout(ctx, min(every, probeTimeout))
		err := probe(ctx)
		cancel()
		switch {
		case (err != nil) == t.ill.Load():
			row = 0
		case err != nil:
			if row++; row == illAfter {
				t.ill.Store(true)
				row = 0
				t.notices.say(zapcore.WarnLevel, "an upstream's target is taken out: health checks in a row failed", zap.Int("failures", illAfter), zap.Error(err))
			}
		default:
			if row++; row == wellAfter {
				t.ill.Store(false)
				row = 0
				t.notices.say(zapcore.InfoLevel, "an upstream's target is put back: health checks in a row succeeded", zap.Int("successes", wellAfter))
			}
		}
	}
}

// sleep reports whether ctx lasts that long.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
