package redis

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	goredis "github.com/redis/go-redis/v9"
)

func TestParseURL(t *testing.T) {
	type options = goredis.UniversalOptions
	for raw, want := range map[string]options{
		"redis://localhost":                             {Addrs: []string{"localhost:6379"}},
		"REDIS://10.0.0.1:7000/":                        {Addrs: []string{"10.0.0.1:7000"}},
		"redis://:p%40ss@cache.internal.:6380/3":        {Addrs: []string{"cache.internal.:6380"}, Password: "p@ss", DB: 3},
		"redis://user:pa:ss@h?db=15&client_name=gate-1": {Addrs: []string{"h:6379"}, Username: "user", Password: "pa:ss", DB: 15, ClientName: "gate-1"},
		"redis://us%2Fer:a@b@h":                         {Addrs: []string{"h:6379"}, Username: "us/er", Password: "a@b"},
		"redis://[::1]":                                 {Addrs: []string{"[::1]:6379"}},
		"redis://[2001:db8::1]:7000/1":                  {Addrs: []string{"[2001:db8::1]:7000"}, DB: 1},
		"rediss://h?timeout=2s&dial_timeout=50ms&pool_size=7": {
			Addrs: []string{"h:6379"}, ReadTimeout: 2 * time.Second, WriteTimeout: 2 * time.Second, PoolTimeout: 2 * time.Second, DialTimeout: 50 * time.Millisecond, PoolSize: 7,
		},
		"unix:///run/redis.sock":                     {Addrs: []string{"/run/redis.sock"}},
		"unix://u:p@/run/my%20redis.sock?db=2":       {Addrs: []string{"/run/my redis.sock"}, Username: "u", Password: "p", DB: 2},
		"redis+sentinel://a,b:1234,[::1]/main":       {Addrs: []string{"a:26379", "b:1234", "[::1]:26379"}, MasterName: "main"},
		"redis+sentinel://u:p@a:1/my%2Fmain?db=4":    {Addrs: []string{"a:1"}, MasterName: "my", Username: "u", Password: "p", DB: -1},
		"rediss+sentinel://:p@a/main/4":              {Addrs: []string{"a:26379"}, MasterName: "main", Password: "p", DB: 4},
		"redis+cluster://:p@a:1,b:2,c?tls=true":      {Addrs: []string{"a:1", "b:2", "c:6379"}, IsClusterMode: true, Password: "p"},
		"rediss+cluster://config.example.com:6379/0": {Addrs: []string{"config.example.com:6379"}, IsClusterMode: true},
		"redis+sentinel://a/m?sentinel_password=%40x&sentinel_username=s": {
			Addrs: []string{"a:26379"}, MasterName: "m", SentinelUsername: "s", SentinelPassword: "@x",
		},
	} {
		got, err := parseURL(raw)
		if want.DB < 0 { // a slash in the master's name cannot be told from the database's
			if err == nil {
				t.Errorf("%s: no error", raw)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		all := *defaults()
		for _, d := range []struct{ to, from *time.Duration }{
			{&all.ReadTimeout, &want.ReadTimeout}, {&all.WriteTimeout, &want.WriteTimeout}, {&all.PoolTimeout, &want.PoolTimeout}, {&all.DialTimeout, &want.DialTimeout},
		} {
			if *d.from != 0 {
				*d.to = *d.from
			}
		}
		all.Addrs, all.Username, all.Password, all.DB, all.MasterName = want.Addrs, want.Username, want.Password, want.DB, want.MasterName
		all.IsClusterMode, all.ClientName, all.PoolSize = want.IsClusterMode, want.ClientName, want.PoolSize
		all.SentinelUsername, all.SentinelPassword = want.SentinelUsername, want.SentinelPassword
		if diff := cmp.Diff(all, *got, cmpopts.IgnoreFields(options{}, "TLSConfig", "MaintNotificationsConfig"), cmpopts.IgnoreTypes(func() {})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
		if secure := strings.HasPrefix(raw, "rediss") || strings.Contains(raw, "tls=true"); secure != (got.TLSConfig != nil) {
			t.Errorf("%s: TLS %v", raw, got.TLSConfig != nil)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                     "must begin with redis://",
		"s3cret":                               "must begin with redis://",
		"s3cret://host":                        "must begin with redis://",
		"http://user:s3cret@host":              "must begin with redis://",
		"redis://":                             "host 1 is empty",
		"redis:///1":                           "host 1 is empty",
		"redis://h:0":                          "port",
		"redis://h:65536":                      "port",
		"redis://:s3cret":                      "port",
		"redis://h:1,g:2":                      "several hosts",
		"redis://h:1, g:2":                     "space",
		"redis://h,":                           "host 2 is empty",
		"redis://::1":                          "brackets",
		"redis://[1.2.3.4]":                    "IPv6",
		"redis://[::1":                         "IPv6",
		"redis://s3cret@host":                  "a password alone is written",
		"redis://:s3/cret@host":                "%2F",
		"redis://:s3?cret@host":                "%3F",
		"redis://:s3#cret@host":                "%23",
		"redis://:s3%cret@host":                "%25",
		"redis://h/one":                        "database",
		"redis://h/1/2":                        "database",
		"redis://h/-1":                         "database",
		"redis://h/1?db=2":                     "twice",
		"redis://h?db=1&db=2":                  "more than once",
		"redis://h?tls=yes":                    "true or false",
		"rediss://h?tls=false":                 "contradicts",
		"redis://h?skip_verify=true":           "need TLS",
		"redis://h?timeout=100ms":              "timeout, which must be a duration from 500ms to 1m",
		"redis://h?timeout=5":                  "duration",
		"redis://h?pool_size=0":                "1 to 10000",
		"redis://h?passwd=s3cret":              `"passwd", which keygate does not know; it knows ca_file, cert_file`,
		"redis://h?s3%cret":                    "parameters that cannot be read",
		"redis://h?S3CRET=1":                   `"…"`,
		"redis://h?sentinel_password=s3cret":   "redis+sentinel:// only",
		"redis+sentinel://h":                   "name the master",
		"redis+sentinel://h/":                  "name the master",
		"redis+sentinel://h/m/x":               "database",
		"redis+cluster://h/1":                  "a cluster has only 0",
		"redis+cluster://h?db=1":               "a cluster has only 0",
		"unix://h/run/sock":                    "absolute path",
		"unix://":                              "absolute path",
		"unix:///run/sock?tls=true":            "socket",
		"rediss://h?ca_file=/does/not/exist":   "ca_file, which cannot be read",
		"rediss://h?cert_file=/does/not/exist": "go together",
		"rediss://h?cert_file=/x&key_file=/y":  "cert_file, which cannot be used",
	} {
		c, err := NewClient(raw)
		if err == nil {
			c.Close()
			t.Errorf("%s: no error; want %q", raw, want)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(strings.ToLower(err.Error()), "cret") {
			t.Errorf("%s: %v; want %q", raw, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := parseURL("rediss://h?ca_file=" + file); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("a file without certificates: %v", err)
	}
}

func TestRedact(t *testing.T) {
	for raw, want := range map[string]string{
		"redis://user:s3cret@h:1/2?timeout=1s":               "redis://h:1/2",
		"Redis+Sentinel://:s3cret@a,b/m?sentinel_password=x": "redis+sentinel://a:26379,b:26379/m",
		"unix://:s3cret@/run/sock":                           "unix:///run/sock",
		"redis://:s3/cret@h":                                 "(a URL that is not valid)",
	} {
		if got := Redact(raw); got != want {
			t.Errorf("%s: %s; want %s", raw, got, want)
		}
	}
}

// FuzzURL: no text makes the parser panic, and no password, written as it should
// be or as it is, reaches an error or what is shown.
func FuzzURL(f *testing.F) {
	f.Add("redis://", "h:1/0", "pass-word-1")
	f.Add("redis+sentinel://", "a,b/main/1?sentinel_password=x", "p/a?s#s@w:o%r&d=1")
	f.Add("redis+cluster://", "a:1,b:x?tls=maybe", "0123456789")
	f.Add("unix://", "/run/sock?unknown=1&db=x", "[::1]:6379/0?db=1")
	f.Add("rediss://", "h?ca_file=/x&skip_verify=1", "h:1,h:2?timeout=zzz")
	f.Fuzz(func(t *testing.T, scheme, rest, password string) {
		const marker = "QqS3cretqQ" // in no text of ours
		password = marker + password + marker
		for _, raw := range []string{
			scheme + ":" + password + "@" + rest, scheme + "user:" + url.QueryEscape(password) + "@" + rest,
			scheme + password + "@" + rest, scheme + password + ":x@" + rest, scheme + "a:b@" + rest + "?sentinel_password=" + url.QueryEscape(password),
		} {
			o, err := parseURL(raw)
			if err != nil && strings.Contains(err.Error(), marker) {
				t.Fatalf("%q: the error holds the password: %v", raw, err)
			}
			if strings.Contains(Redact(raw), marker) {
				t.Fatalf("%q: redacted to %s", raw, Redact(raw))
			}
			if err == nil && len(o.Addrs) == 0 {
				t.Fatalf("%q: no address", raw)
			}
		}
	})
}
