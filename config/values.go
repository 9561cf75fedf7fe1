package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"keygate/proxy/route"
	"keygate/ratelimit"
)

// parsers read the types of Config. Their errors go on from the value: "abc"
// is not a whole number.
func parsers() map[reflect.Type]env.ParserFunc {
	return map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[bool]():           func(s string) (any, error) { return parseBool(s) },
		reflect.TypeFor[int]():            func(s string) (any, error) { return parseInt(s) },
		reflect.TypeFor[time.Duration]():  func(s string) (any, error) { return parseDuration(s) },
		reflect.TypeFor[[]netip.Prefix](): func(s string) (any, error) { return parsePrefixes(s) },
		reflect.TypeFor[route.Budget]():   func(s string) (any, error) { return parseOptionalBudget(s) },
		reflect.TypeFor[url.URL](): func(s string) (any, error) {
			u, err := parseTarget(s, "http", "https")
			if err != nil {
				return nil, err
			}
			return *u, nil
		},
	}
}

func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, errors.New("is neither true nor false")
	}
	return s == "true", nil
}

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("is out of bounds")
	}
	if err != nil {
		return 0, errors.New("is not a whole number")
	}
	return n, nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, errors.New("has no unit: give ms, s, m or h, as in 30s")
	}
	return 0, errors.New("is not a duration such as 500ms, 30s, 1m or 24h")
}

// parsePrefixes reads addresses and ranges separated by commas.
func parsePrefixes(s string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if addr, err := netip.ParseAddr(part); err == nil && addr.Zone() == "" {
			addr = addr.Unmap()
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(part)
		switch {
		case err != nil:
			return nil, fmt.Errorf("holds %s, which is neither an address nor a CIDR range", quoted(part))
		case prefix != prefix.Masked():
			return nil, fmt.Errorf("holds %s, whose address has bits beyond the range: %s is the range", quoted(part), prefix.Masked())
		case prefix.Addr().Is4In6():
			return nil, fmt.Errorf("holds %s: write IPv4 ranges as IPv4", quoted(part))
		}
		out = append(out, prefix)
	}
	return out, nil
}

// parseTarget reads the URL of an upstream: a place, to which path and query
// of the request are added. It has one of the schemes.
func parseTarget(s string, schemes ...string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("is not a URL") // the error of url.Parse repeats the URL, which may hold a password
	}
	switch port := u.Port(); {
	case !slices.Contains(schemes, u.Scheme):
		last := len(schemes) - 1
		return nil, fmt.Errorf("has no scheme %s or %s", strings.Join(schemes[:last], ", "), schemes[last])
	case u.Hostname() == "":
		return nil, errors.New("names no host")
	case u.User != nil:
		return nil, errors.New("holds credentials")
	case u.RawQuery != "" || u.ForceQuery:
		return nil, errors.New("has a query")
	case strings.Contains(s, "#"):
		return nil, errors.New("has a fragment")
	case strings.HasSuffix(u.Host, ":") || port != "" && !isPort(port, 1):
		return nil, errors.New("has a port that is not 1 to 65535")
	}
	return u, nil
}

// redacted hides what may be secret in a URL: its credentials and its query.
func redacted(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		scheme, _, ok := strings.Cut(s[:at], "//")
		if ok {
			scheme += "//"
		} else {
			scheme = ""
		}
		s = scheme + "…" + s[at:]
	}
	if i := strings.IndexByte(s, '?'); i >= 0 {
		s = s[:i+1] + "…"
	}
	return s
}

func isPort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= least && n <= 65535 && s == strconv.Itoa(n)
}

// listen is the address of a listener.
type listen struct {
	host string // empty: all interfaces
	port int    // 0: the system chooses one
}

func parseListen(s string) (listen, error) {
	host, port, err := net.SplitHostPort(s)
	switch {
	case err != nil && !strings.Contains(s, ":"):
		return listen{}, errors.New("has no port")
	case err != nil:
		return listen{}, errors.New("is not host:port; an IPv6 address stands in brackets, as in [::1]:8080")
	case !isPort(port, 0):
		return listen{}, errors.New("has a port that is not 0 to 65535")
	case strings.Contains(host, ":") || host == "" || isHostname(host):
	default:
		return listen{}, errors.New("names no host that could be listened on")
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return listen{}, errors.New("holds an IPv6 address that is none")
		}
	}
	n, _ := strconv.Atoi(port) // isPort saw it
	return listen{host, n}, nil
}

// isHostname wants letters, digits, hyphens and dots (RFC 1123), which an IPv4
// address has too.
func isHostname(s string) bool {
	for _, c := range []byte(s) {
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return len(s) <= 253
}

func (l listen) addr() (netip.Addr, bool) {
	addr, err := netip.ParseAddr(l.host)
	return addr.Unmap(), err == nil
}

// loopback reports whether only this machine can reach the listener.
func (l listen) loopback() bool {
	addr, ok := l.addr()
	return ok && addr.IsLoopback() || strings.EqualFold(l.host, "localhost")
}

// overlaps reports whether two listeners would fight for one port.
func (l listen) overlaps(o listen) bool {
	all := func(l listen) bool {
		addr, ok := l.addr()
		return l.host == "" || ok && addr.IsUnspecified()
	}
	return l.port != 0 && l.port == o.port && (l.host == o.host || all(l) || all(o))
}

func isPrintable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// errBudget says that a text is no budget, whatever its numbers are.
var errBudget = errors.New("is not a number of requests per duration")

// parseBudget reads a number of requests per duration, such as 60/1m.
func parseBudget(s string) (route.Budget, error) {
	requests, per, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(requests)
	span, spanErr := parseDuration(per)
	if err != nil || spanErr != nil || strconv.Itoa(n) != requests {
		return route.Budget{}, errBudget
	}
	return route.Budget{Requests: n, Per: span}, ratelimit.Limit{Name: "per_address", Quota: int64(n), Per: span}.Validate()
}

// off is the text for a budget that there is not.
const off = "off"

func parseOptionalBudget(s string) (route.Budget, error) {
	if s == off {
		return route.Budget{}, nil
	}
	b, err := parseBudget(s)
	if err != nil && !errors.Is(err, errBudget) {
		err = errors.New("is out of bounds") // the limit's own words are about policy files
	}
	return b, err
}
