package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// address is a URL taken apart. net/url would do it, but repeats the whole URL,
// password included, in its errors, and knows one host only.
type address struct {
	kind           string // "redis", "unix", "sentinel" or "cluster"
	tls            bool
	user, password string
	hosts          []string
	path           string // without the first slash; unescaped
	query          url.Values
}

var schemes = map[string]address{
	"redis": {kind: "redis"}, "rediss": {kind: "redis", tls: true}, "unix": {kind: "unix"},
	"redis+sentinel": {kind: "sentinel"}, "rediss+sentinel": {kind: "sentinel", tls: true},
	"redis+cluster": {kind: "cluster"}, "rediss+cluster": {kind: "cluster", tls: true},
}

// Redact returns what may be shown of a URL: its scheme, hosts and path.
func Redact(raw string) string {
	a, err := split(raw)
	if err != nil {
		return "(a URL that is not valid)"
	}
	scheme, _, _ := strings.Cut(raw, "://")
	return strings.ToLower(scheme) + "://" + strings.Join(a.hosts, ",") + "/" + a.path
}

// split takes a URL apart. Its errors repeat nothing of it: where a password
// holds a character that ends it, any part may be the password's.
func split(raw string) (address, error) {
	scheme, rest, found := strings.Cut(raw, "://")
	a, known := schemes[strings.ToLower(scheme)]
	if !found || !known {
		return a, errors.New("must begin with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://")
	}
	if strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return a, errors.New("holds a space or a control character")
	}
	if strings.Contains(rest, "#") {
		return a, errors.New("holds a #: in a user name or password it is written %23")
	}
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if strings.Contains(path, "@") || strings.Contains(query, "@") {
		return a, errors.New("holds an @ after the host: in a user name or password / is written %2F, ? is written %3F and @ is written %40")
	}
	var err error
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, both := strings.Cut(authority[:at], ":")
		authority = authority[at+1:]
		if !both {
			return a, errors.New("has a user name and no password: a password alone is written redis://:password@host")
		}
		var err2 error
		a.user, err = url.PathUnescape(user)
		a.password, err2 = url.PathUnescape(password)
		if err != nil || err2 != nil {
			return a, errors.New("has a user name or password that is not percent-encoded: % is written %25")
		}
	}
	if a.path, err = url.PathUnescape(path); err != nil {
		return a, errors.New("has a path that is not percent-encoded")
	}
	if a.query, err = url.ParseQuery(query); err != nil {
		return a, errors.New("has parameters that cannot be read after the ?")
	}
	err = a.setHosts(authority)
	return a, err
}

func (a *address) setHosts(authority string) error {
	if a.kind == "unix" {
		if authority != "" || a.path == "" {
			return errors.New("must name a socket by its absolute path: unix:///run/redis.sock")
		}
		return nil
	}
	port := "6379"
	if a.kind == "sentinel" {
		port = "26379"
	}
	for i, text := range strings.Split(authority, ",") {
		host, err := hostPort(text, port)
		if err != nil {
			return fmt.Errorf("host %d %w", i+1, err)
		}
		a.hosts = append(a.hosts, host)
	}
	if len(a.hosts) > 1 && a.kind == "redis" {
		return errors.New("names several hosts: a cluster is redis+cluster://, sentinels are redis+sentinel://")
	}
	return nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?$`)

func hostPort(text, port string) (string, error) {
	host := text
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port = text[:i], text[i+1:]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("has a port that is no number from 1 to 65535")
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if addr, err := netip.ParseAddr(inner); !ok || err != nil || !addr.Is6() {
			return "", errors.New("is no IPv6 address, such as [::1]")
		}
		return net.JoinHostPort(inner, port), nil
	}
	if host == "" {
		return "", errors.New("is empty")
	}
	if !hostName.MatchString(host) {
		return "", errors.New("is neither a name nor an address; an IPv6 address stands in brackets")
	}
	return net.JoinHostPort(host, port), nil
}

// parseURL reads a URL; see NewClient.
func parseURL(raw string) (*goredis.UniversalOptions, error) {
	a, err := split(raw)
	if err != nil {
		return nil, fmt.Errorf("the Redis URL %w", err)
	}
	o := defaults()
	o.Addrs, o.Username, o.Password = a.hosts, a.user, a.password
	if err := a.setPath(o); err != nil {
		return nil, fmt.Errorf("the Redis URL %w", err)
	}
	if err := a.setParameters(o); err != nil {
		return nil, fmt.Errorf("the Redis URL has the parameter %w", err)
	}
	return o, nil
}

// setPath reads the database and the name of the master.
func (a *address) setPath(o *goredis.UniversalOptions) error {
	db := a.path
	switch a.kind {
	case "unix":
		o.Addrs, db = []string{"/" + a.path}, ""
	case "sentinel":
		o.MasterName, db, _ = strings.Cut(a.path, "/")
		if o.MasterName == "" {
			return errors.New("must name the master that the sentinels watch: redis+sentinel://host/master")
		}
	case "cluster":
		o.IsClusterMode = true
	}
	if query, ok := a.query["db"]; ok {
		if db != "" {
			return errors.New("names the database twice, in the path and as db")
		}
		db = query[0]
	}
	if db == "" {
		return nil
	}
	n, err := strconv.ParseUint(db, 10, 31)
	if err != nil {
		return errors.New("has a database that is no number")
	}
	if o.DB = int(n); n != 0 && a.kind == "cluster" {
		return errors.New("names a database: a cluster has only 0")
	}
	return nil
}

const parameters = "ca_file, cert_file, client_name, db, dial_timeout, key_file, pool_size, sentinel_password, sentinel_username, skip_verify, timeout, tls"

// setParameters reads what follows the question mark. An error names the
// parameter and repeats no value.
func (a *address) setParameters(o *goredis.UniversalOptions) error {
	var skip bool
	var ca, cert, key string
	for _, name := range slices.Sorted(maps.Keys(a.query)) {
		values := a.query[name]
		if len(values) != 1 {
			return fmt.Errorf("%q more than once", name)
		}
		var err error
		switch value := values[0]; name {
		case "db":
		case "timeout":
			err = duration(value, 2*feedBlock, &o.ReadTimeout)
			o.WriteTimeout, o.PoolTimeout = o.ReadTimeout, o.ReadTimeout
		case "dial_timeout":
			err = duration(value, time.Millisecond, &o.DialTimeout)
		case "pool_size":
			if o.PoolSize, err = strconv.Atoi(value); err != nil || o.PoolSize < 1 || o.PoolSize > 10_000 {
				err = errors.New("must be a number from 1 to 10000")
			}
		case "client_name":
			o.ClientName = value
		case "sentinel_username":
			o.SentinelUsername, err = value, a.sentinelOnly()
		case "sentinel_password":
			o.SentinelPassword, err = value, a.sentinelOnly()
		case "tls":
			was := a.tls
			if a.tls, err = boolean(value); err == nil && was && !a.tls {
				err = errors.New("contradicts rediss://")
			}
		case "skip_verify":
			skip, err = boolean(value)
		case "ca_file":
			ca = value
		case "cert_file":
			cert = value
		case "key_file":
			key = value
		default:
			return unknownParameter(name)
		}
		if err != nil {
			return fmt.Errorf("%s, which %w", name, err)
		}
	}
	if !a.tls {
		if skip || ca != "" || cert != "" || key != "" {
			return errors.New("ca_file, cert_file, key_file or skip_verify, which need TLS: rediss://")
		}
		return nil
	}
	if a.kind == "unix" {
		return errors.New("tls, which a socket cannot have")
	}
	var err error
	o.TLSConfig, err = tlsConfig(skip, ca, cert, key)
	return err
}

// unknownParameter shows the name if it looks like one.
func unknownParameter(name string) error {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz_") != "" || len(name) > 30 {
		name = "…"
	}
	return fmt.Errorf("%q, which keygate does not know; it knows %s", name, parameters)
}

func (a *address) sentinelOnly() error {
	if a.kind != "sentinel" {
		return errors.New("is for redis+sentinel:// only")
	}
	return nil
}

func boolean(value string) (bool, error) {
	if value != "true" && value != "false" {
		return false, errors.New("must be true or false")
	}
	return value == "true", nil
}

func duration(value string, least time.Duration, to *time.Duration) error {
	d, err := time.ParseDuration(value)
	if err != nil || d < least || d > time.Minute {
		return fmt.Errorf("must be a duration from %v to 1m, such as 1s", least)
	}
	*to = d
	return nil
}

// nameless drops the name of the file.
func nameless(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func tlsConfig(skipVerify bool, caFile, certFile, keyFile string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file, which cannot be read: %w", nameless(err))
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("ca_file, but the file holds no certificate")
		}
	}
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("cert_file or key_file, which go together")
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file, which cannot be used: %w", nameless(err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
