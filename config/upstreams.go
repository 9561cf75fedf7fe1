package config

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"keygate/proxy/route"
	"keygate/proxy/upstream"
)

// upstreams reads where requests may go.
func (d *decoder) upstreams(v value) map[string]upstream.Options {
	out := make(map[string]upstream.Options)
	for _, e := range d.named(v) {
		out[e.name] = d.upstream(e)
	}
	return out
}

// newUpstream has what holds where nothing is said.
func newUpstream(name string) upstream.Options {
	return upstream.Options{Name: name, Timeouts: route.DefaultTimeouts(), RetryBudget: upstream.DefaultRetryBudget}
}

func (d *decoder) upstream(e entry) upstream.Options {
	up := newUpstream(e.name)
	fields, ok := d.fields(e.value, upstreamForm)
	if !ok {
		return up
	}
	if v, ok := fields["targets"]; ok {
		up.Targets = d.targets(v)
	}
	if v, ok := fields["balance"]; ok {
		if s, _ := d.choice(v, balances...); s == balances[upstream.LeastRequests] {
			up.Balance = upstream.LeastRequests
		}
	}
	if v, ok := fields["health"]; ok {
		up.Health = d.health(v, up.Targets)
	}
	if v, ok := fields["timeouts"]; ok {
		up.Timeouts = d.timeouts(v, up.Timeouts)
	}
	if v, ok := fields["tls"]; ok {
		up.TLS = d.tls(v, up.Targets)
	}
	if v, ok := fields["max_concurrent"]; ok {
		up.MaxConcurrent = int(d.within(v, 0, math.MaxInt32))
	}
	if v, ok := fields["breaker"]; ok {
		up.Breaker = d.breaker(v)
	}
	if v, ok := fields["retry_budget"]; ok {
		up.RetryBudget = d.percent(v, 0)
	}
	return up
}

// balances are the words for upstream.Balance.
var balances = []string{"round_robin", "least_requests"}

func (d *decoder) targets(v value) (out []*url.URL) {
	targets, ok := d.list(v)
	if ok && len(targets) == 0 {
		d.fail(v, "is an empty list; allowed are 1 to %d URLs", upstream.MaxTargets)
	}
	if len(targets) > upstream.MaxTargets {
		d.fail(v, "has %d entries; at most %d are allowed", len(targets), upstream.MaxTargets)
		return nil
	}
	for _, target := range targets {
		s, ok := d.text(target)
		if !ok {
			continue
		}
		u, err := parseTarget(s, "http", "https", upstream.H2C)
		switch {
		case err != nil:
			d.fail(target, "%s %s; allowed is an http, https or h2c URL without credentials, query and fragment", quoted(redacted(s)), err)
		case slices.ContainsFunc(out, func(other *url.URL) bool { return other.String() == u.String() }):
			d.fail(target, "is %s, which is there already", quoted(s))
		default:
			out = append(out, u)
		}
	}
	return out
}

// choice wants one of a few words.
func (d *decoder) choice(v value, words ...string) (string, bool) {
	s, ok := d.text(v)
	if ok && !slices.Contains(words, s) {
		d.fail(v, "is %s; allowed: %s%s", quoted(s), strings.Join(words, ", "), d.didYouMean(s, words))
		return s, false
	}
	return s, ok
}

// healthTypes are the kinds of checks, the usual one first.
var healthTypes = []string{upstream.HTTPCheck, upstream.TCPCheck, upstream.GRPCCheck}

const (
	leastEvery = 100 * time.Millisecond
	mostEvery  = time.Hour
)

func (d *decoder) health(v value, targets []*url.URL) *upstream.Health {
	h := &upstream.Health{Type: upstream.HTTPCheck, Every: upstream.DefaultHealthEvery}
	fields, ok := d.fields(v, healthForm)
	if !ok {
		return h
	}
	if v, ok := fields["type"]; ok {
		h.Type, _ = d.choice(v, healthTypes...)
	}
	path, hasPath := fields["path"]
	if hasPath {
		s, ok := d.text(path)
		switch {
		case ok && !isPath(s):
			d.fail(path, "is %s; allowed is a path that starts with /, in printable ASCII without space and #, and %% with two hexadecimal digits after it", quoted(s))
		case ok && h.Type != upstream.HTTPCheck:
			d.fail(path, "is not for checks of type %s", h.Type)
		}
		h.Path = s
	} else if h.Type == upstream.HTTPCheck && !isThere(v, "path") {
		d.fail(v, "has no path, which a check of type http asks for")
	}
	if v, ok := fields["service"]; ok {
		if h.Service, ok = d.text(v); ok && h.Type != upstream.GRPCCheck {
			d.fail(v, "is for checks of type grpc")
		}
	}
	if v, ok := fields["every"]; ok {
		h.Every = d.between(v, leastEvery, mostEvery)
	}
	for _, target := range targets {
		if h.Type == upstream.GRPCCheck && target.Scheme == "http" {
			d.fail(v, "is of type grpc, which needs HTTP/2: write the target %s with h2c:// or https://", quoted(target.String()))
			break
		}
	}
	return h
}

// isPath reports whether a path, with a query perhaps, can stand in a request as
// it is.
func isPath(s string) bool {
	_, err := url.ParseRequestURI(s)
	return strings.HasPrefix(s, "/") && isPrintable(s) && !strings.ContainsAny(s, " #") && err == nil
}

// timeouts are the same for an upstream and for a route, which has the upstream's
// where it sets none; 0s is no bound.
func (d *decoder) timeouts(v value, out route.Timeouts) route.Timeouts {
	fields, _ := d.fields(v, timeoutsForm)
	for name, of := range map[string]*time.Duration{
		"connect": &out.Connect, "tls": &out.TLS, "first_byte": &out.FirstByte, "idle": &out.Idle, "total": &out.Total,
	} {
		if v, ok := fields[name]; ok {
			*of = d.between(v, 0, maxTimeout)
		}
	}
	return out
}

const maxTimeout = 24 * time.Hour

// tls reads the files that it names, so that a mistake in them is one of the
// policy.
func (d *decoder) tls(v value, targets []*url.URL) (out upstream.TLS) {
	fields, ok := d.fields(v, tlsForm)
	if !ok {
		return out
	}
	if len(targets) > 0 && !slices.ContainsFunc(targets, func(u *url.URL) bool { return u.Scheme == "https" }) {
		d.fail(v, "is set, and no target is https")
	}
	for name, of := range map[string]*[]byte{"ca": &out.CA, "cert": &out.Certificate, "key": &out.Key} {
		if v, ok := fields[name]; ok {
			*of = d.fileOf(v)
		}
	}
	if out.CA != nil && !upstream.HasCertificates(out.CA) {
		d.fail(fields["ca"], "%s holds no certificate in PEM", quoted(fields["ca"].node.Value))
	}
	switch cert, key := isThere(v, "cert"), isThere(v, "key"); {
	case cert != key:
		d.fail(v, "has one of cert and key: a client certificate needs both")
	case out.Certificate != nil && out.Key != nil:
		if err := out.CheckPair(); err != nil {
			d.fail(fields["cert"], "%s", err)
		}
	}
	if v, ok := fields["server_name"]; ok {
		if out.ServerName, ok = d.text(v); ok && !isHostname(out.ServerName) {
			d.fail(v, "is %s; allowed is a host name", quoted(out.ServerName))
		}
	}
	return out
}

// fileOf reads the file that a value names.
func (d *decoder) fileOf(v value) []byte {
	name, ok := d.text(v)
	if !ok {
		return nil
	}
	data, sum, err := readNamed(name)
	d.files = append(d.files, File{name, sum})
	if err != nil {
		d.fail(v, "%s cannot be read: %s", quoted(name), reason(err))
		return nil
	}
	return data
}

func (d *decoder) breaker(v value) *upstream.Breaker {
	out := upstream.DefaultBreaker()
	fields, _ := d.fields(v, breakerForm)
	if v, ok := fields["failures"]; ok {
		out.Failures = d.percent(v, 1)
	}
	if v, ok := fields["requests"]; ok {
		out.Requests = int(d.within(v, 1, maxBreakerRequests))
	}
	if v, ok := fields["window"]; ok {
		out.Window = d.between(v, time.Second, time.Hour)
	}
	if v, ok := fields["open"]; ok {
		out.Open = d.between(v, leastEvery, time.Hour)
	}
	return &out
}

const maxBreakerRequests = 1_000_000

// within wants a whole number within bounds.
func (d *decoder) within(v value, least, most int64) int64 {
	n, ok := d.integer(v)
	if ok && (n < least || n > most) {
		d.fail(v, "is %d; allowed are %d to %d", n, least, most)
	}
	return n
}

// percent wants a whole number of percents, such as 20%.
func (d *decoder) percent(v value, least int) int {
	s, ok := d.text(v)
	if !ok {
		return 0
	}
	digits, marked := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || !marked || strconv.Itoa(n) != digits || n < least || n > 100 {
		d.fail(v, "is %s; allowed are %d%% to 100%%", quoted(s), least)
		return 0
	}
	return n
}

// units of sizes, in bytes.
var units = map[string]int64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

const maxSize = 1 << 40

// size wants a number of bytes with its unit.
func (d *decoder) size(v value) int64 {
	s, ok := d.text(v)
	if !ok {
		return 0
	}
	digits := strings.TrimRight(s, "BKMGi")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit, known := units[s[len(digits):]]
	if err != nil || !known || n < 1 || strconv.FormatInt(n, 10) != digits || n > maxSize/unit {
		d.fail(v, "is %s; allowed is a whole number with its unit, as in 512B, 64KiB, 10MiB or 2GiB, at most %s", quoted(s), fmt.Sprintf("%dGiB", maxSize>>30))
		return 0
	}
	return n * unit
}
