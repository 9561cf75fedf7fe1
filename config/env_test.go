package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
	"keygate/proxy/route"
)

func bootstrapKey(t testing.TB, prefix string) string {
	t.Helper()
	format, err := keys.NewFormat(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return format.Generate()
}

func TestDefaults(t *testing.T) {
	t.Setenv("KEYGATE_REALM", "of the process, which was not asked")
	c, warnings, err := FromEnv([]string{"PATH=/bin", "GOMEMLIMIT=1GiB"})
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	c.set = nil
	want := Config{
		Addr: ":8080", AdminAddr: "127.0.0.1:9090", TLSAddr: ":8443", HSTS: 8760 * time.Hour, DataDir: "./data", PolicyWatch: true, DefaultPlan: "free", KeyPrefix: "kg_live",
		Realm: "keygate", CacheKeys: 100_000, Me: true, FailedPerAddr: route.Budget{Requests: 100, Per: time.Minute}, MaxConnections: 10_000, MaxPerKey: 1000, MaxURL: 8192,
		ReadTimeout: time.Minute, WriteTimeout: time.Minute, ClientMinRate: 240, DrainTimeout: 25 * time.Second, DrainDelay: time.Second, LogLevel: "info",
	}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(Config{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEverythingSet(t *testing.T) {
	key := bootstrapKey(t, "acme_test")
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := FromEnv([]string{
		"PORT=3000", "KEYGATE_ADDR=0.0.0.0:3000", "KEYGATE_ADMIN_ADDR=[::]:9090", "KEYGATE_ADMIN_INSECURE=true", "KEYGATE_DATA_DIR=/data",
		"KEYGATE_TLS_ADDR=:443", "KEYGATE_TLS_CERT=/tls/cert.pem", "KEYGATE_TLS_KEY=/tls/key.pem", "KEYGATE_ADMIN_TLS_CERT=/tls/admin.pem", "KEYGATE_ADMIN_TLS_KEY=/tls/admin-key.pem",
		"KEYGATE_REQUIRE_HTTPS=true", "KEYGATE_PAUSE_EXPOSED_KEYS=true", "KEYGATE_HSTS=0s",
		"KEYGATE_MAX_CONNECTIONS=1", "KEYGATE_MAX_URL_BYTES=256", "KEYGATE_CLIENT_WRITE_TIMEOUT=0s", "KEYGATE_CLIENT_MIN_RATE=0",
		"KEYGATE_MAX_REQUESTS_PER_KEY=2", "KEYGATE_CLIENT_READ_TIMEOUT=0s",
		"KEYGATE_UPSTREAM=https://api.example.com/base", "KEYGATE_POLICY_FILE=policy.yaml", "KEYGATE_POLICY_WATCH=false", "KEYGATE_DEFAULT_PLAN=pro",
		"KEYGATE_KEY_PREFIX=acme_test", "KEYGATE_BOOTSTRAP_KEY_FILE=" + file,
		"KEYGATE_WAIT_AFTER_CRASH=true", "KEYGATE_TRUSTED_PROXIES=10.0.0.0/8, 192.0.2.1,2001:db8::/32,::ffff:192.0.2.2", "KEYGATE_REALM=Acme API", "KEYGATE_CACHE_KEYS=1",
		"KEYGATE_ME=false", "KEYGATE_FAILED_PER_ADDRESS=off", "KEYGATE_DRAIN_TIMEOUT=0s", "KEYGATE_DRAIN_DELAY=0s", "LOG_LEVEL=debug", "LOG_FORMAT=console",
		"KEYGATE_ADMIN_URL=http://localhost:9090", "KEYGATE_ADMIN_KEY=whatever",
	})
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	if c.BootstrapKey.Reveal() != key {
		t.Errorf("the bootstrap key is %q", c.BootstrapKey.Reveal())
	}
	if want := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("192.0.2.2/32"),
	}; !slices.Equal(c.TrustedProxies, want) {
		t.Errorf("trusted proxies are %v", c.TrustedProxies)
	}
	var got []string
	for _, s := range c.Describe() {
		got = append(got, fmt.Sprintf("%s=%s default=%v", s.Variable, s.Value, s.Default))
		if s.Doc == "" || s.Allowed == "" {
			t.Errorf("%s is not documented", s.Variable)
		}
	}
	if diff := cmp.Diff([]string{
		"PORT=3000 default=false",
		"KEYGATE_ADDR=0.0.0.0:3000 default=false",
		"KEYGATE_ADMIN_ADDR=[::]:9090 default=false",
		"KEYGATE_ADMIN_INSECURE=true default=false",
		"KEYGATE_TLS_ADDR=:443 default=false",
		"KEYGATE_TLS_CERT=/tls/cert.pem default=false",
		"KEYGATE_TLS_KEY=/tls/key.pem default=false",
		"KEYGATE_ADMIN_TLS_CERT=/tls/admin.pem default=false",
		"KEYGATE_ADMIN_TLS_KEY=/tls/admin-key.pem default=false",
		"KEYGATE_REQUIRE_HTTPS=true default=false",
		"KEYGATE_PAUSE_EXPOSED_KEYS=true default=false",
		"KEYGATE_HSTS=0s default=false",
		"KEYGATE_DATA_DIR=/data default=false",
		"KEYGATE_WAIT_AFTER_CRASH=true default=false",
		"REDIS_URL= default=true",
		"REDIS_URL_FILE= default=true",
		"KEYGATE_UPSTREAM=https://api.example.com/base default=false",
		"KEYGATE_POLICY= default=true",
		"KEYGATE_POLICY_FILE=policy.yaml default=false",
		"KEYGATE_POLICY_WATCH=false default=false",
		"KEYGATE_DEFAULT_PLAN=pro default=false",
		"KEYGATE_KEY_PREFIX=acme_test default=false",
		"KEYGATE_BOOTSTRAP_KEY=(set) default=false",
		"KEYGATE_BOOTSTRAP_KEY_FILE=" + file + " default=false",
		"KEYGATE_TRUSTED_PROXIES=10.0.0.0/8,192.0.2.1/32,2001:db8::/32,192.0.2.2/32 default=false",
		"KEYGATE_REALM=Acme API default=false",
		"KEYGATE_CACHE_KEYS=1 default=false",
		"KEYGATE_ME=false default=false",
		"KEYGATE_FAILED_PER_ADDRESS=off default=false",
		"KEYGATE_MAX_CONNECTIONS=1 default=false",
		"KEYGATE_MAX_REQUESTS_PER_KEY=2 default=false",
		"KEYGATE_MAX_URL_BYTES=256 default=false",
		"KEYGATE_CLIENT_READ_TIMEOUT=0s default=false",
		"KEYGATE_CLIENT_WRITE_TIMEOUT=0s default=false",
		"KEYGATE_CLIENT_MIN_RATE=0 default=false",
		"KEYGATE_DRAIN_TIMEOUT=0s default=false",
		"KEYGATE_DRAIN_DELAY=0s default=false",
		"LOG_LEVEL=debug default=false",
		"LOG_FORMAT=console default=false",
	}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c.BootstrapKey, c.BootstrapKey)
	if asJSON, err := json.Marshal(c); err != nil || strings.Contains(shown+string(asJSON), key[len("acme_test_"):]) {
		t.Errorf("the key is shown: %s", shown)
	}
}

func TestPortAlone(t *testing.T) {
	c, _, err := FromEnv([]string{"PORT=3000", "KEYGATE_POLICY=version: 1"})
	if err != nil || c.Addr != ":3000" {
		t.Fatal(c.Addr, err)
	}
	for _, s := range c.Describe() {
		if s.Variable == "KEYGATE_ADDR" && (s.Value != ":3000" || s.Default) || s.Variable == "KEYGATE_POLICY" && s.Value != "(10 bytes)" {
			t.Errorf("%+v", s)
		}
	}
}

func TestKubernetesServiceVariables(t *testing.T) {
	_, warnings, err := FromEnv([]string{
		"KEYGATE_SERVICE_HOST=10.0.0.7", "KEYGATE_SERVICE_PORT=80", "KEYGATE_SERVICE_PORT_HTTP=80", "KEYGATE_PORT=tcp://10.0.0.7:80",
		"KEYGATE_PORT_80_TCP=tcp://10.0.0.7:80", "KEYGATE_PORT_80_TCP_PROTO=tcp", "KEYGATE_PORT_80_TCP_PORT=80", "KEYGATE_PORT_80_TCP_ADDR=10.0.0.7",
		"KEYGATE_ADMIN_SERVICE_HOST=10.0.0.8", "KEYGATE_ADMIN_PORT=tcp://10.0.0.8:9090",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ignored, because Kubernetes sets them for a Service named keygate: KEYGATE_ADMIN_PORT, KEYGATE_ADMIN_SERVICE_HOST, " +
		"KEYGATE_PORT, KEYGATE_PORT_80_TCP, KEYGATE_PORT_80_TCP_ADDR, KEYGATE_PORT_80_TCP_PORT, KEYGATE_PORT_80_TCP_PROTO, " +
		"KEYGATE_SERVICE_HOST, KEYGATE_SERVICE_PORT, KEYGATE_SERVICE_PORT_HTTP"}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Each row is an environment, separated by spaces, and all that is said about it.
func TestBadEnvironments(t *testing.T) {
	good := bootstrapKey(t, "kg_live")
	dir := t.TempDir()
	empty, big, wrong := filepath.Join(dir, "empty"), filepath.Join(dir, "big"), filepath.Join(dir, "wrong")
	for file, content := range map[string]string{empty: "\n", big: strings.Repeat("x", maxSecret+1), wrong: "kg_live_hunter2"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const (
		target  = "; allowed: an http or https URL without credentials, query and fragment"
		address = "; allowed: host:port, or :port for all interfaces"
		proxies = "; allowed: addresses and CIDR ranges, separated by commas"
		notOurs = "is not a key of this instance: it must start with kg_live_ and have a matching checksum; 'keygate keys generate' prints one"
		exposed = " can be reached from other machines over plain HTTP, which shows administrator keys to the network; " +
			"allowed: a loopback address such as 127.0.0.1:9090, or any address together with KEYGATE_ADMIN_TLS_CERT or KEYGATE_ADMIN_INSECURE=true"
	)
	for env, want := range map[string][]string{
		"PORT=http":                             {`PORT: "http" is not a whole number; allowed: 1 to 65535`},
		"PORT=0":                                {`PORT: "0" is out of bounds; allowed: 1 to 65535`},
		"PORT=99999999999999999999":             {`PORT: "99999999999999999999" is out of bounds; allowed: 1 to 65535`},
		"PORT=3000 KEYGATE_ADDR=:8080":          {`KEYGATE_ADDR: ":8080" is another port than PORT=3000: unset one of them`},
		"KEYGATE_ADDR=8080":                     {`KEYGATE_ADDR: "8080" has no port` + address},
		"KEYGATE_ADDR=::1:8080":                 {`KEYGATE_ADDR: "::1:8080" is not host:port; an IPv6 address stands in brackets, as in [::1]:8080` + address},
		"KEYGATE_ADDR=[::1":                     {`KEYGATE_ADDR: "[::1" is not host:port; an IPv6 address stands in brackets, as in [::1]:8080` + address},
		"KEYGATE_ADDR=[::g]:80":                 {`KEYGATE_ADDR: "[::g]:80" holds an IPv6 address that is none` + address},
		"KEYGATE_ADDR=a_b:80":                   {`KEYGATE_ADDR: "a_b:80" names no host that could be listened on` + address},
		"KEYGATE_ADDR=:http":                    {`KEYGATE_ADDR: ":http" has a port that is not 0 to 65535` + address},
		"KEYGATE_ADMIN_ADDR=:9090":              {`KEYGATE_ADMIN_ADDR: ":9090"` + exposed},
		"KEYGATE_ADMIN_ADDR=10.0.0.1:9090":      {`KEYGATE_ADMIN_ADDR: "10.0.0.1:9090"` + exposed},
		"KEYGATE_ADMIN_ADDR=localhost:8080":     {`KEYGATE_ADMIN_ADDR: "localhost:8080" is taken by the proxy, which listens on ":8080": give another port`},
		"KEYGATE_ADMIN_INSECURE=yes":            {`KEYGATE_ADMIN_INSECURE: "yes" is neither true nor false; allowed: true or false`},
		"KEYGATE_UPSTREAM=localhost:80":         {`KEYGATE_UPSTREAM: "localhost:80" has no scheme http or https` + target},
		"KEYGATE_UPSTREAM=http://me:pass@h":     {`KEYGATE_UPSTREAM: "http://…@h" holds credentials` + target},
		"KEYGATE_UPSTREAM=http://me:p%zz@h":     {`KEYGATE_UPSTREAM: "http://…@h" is not a URL` + target},
		"KEYGATE_UPSTREAM=me:pass@h":            {`KEYGATE_UPSTREAM: "…@h" has no scheme http or https` + target},
		"KEYGATE_UPSTREAM=http://h/?token=pass": {`KEYGATE_UPSTREAM: "http://h/?…" has a query` + target},
		"KEYGATE_UPSTREAM=http://h:":            {`KEYGATE_UPSTREAM: "http://h:" has a port that is not 1 to 65535` + target},
		"KEYGATE_POLICY=a KEYGATE_POLICY_FILE=b": {
			`KEYGATE_POLICY: is set together with KEYGATE_POLICY_FILE: unset one of them`,
		},
		"KEYGATE_BOOTSTRAP_KEY=hunter2": {`KEYGATE_BOOTSTRAP_KEY: ` + notOurs},
		"KEYGATE_BOOTSTRAP_KEY=" + good + " KEYGATE_KEY_PREFIX=acme": {
			strings.ReplaceAll(`KEYGATE_BOOTSTRAP_KEY: `+notOurs, "kg_live_", "acme_"),
		},
		"KEYGATE_BOOTSTRAP_KEY=" + good + " KEYGATE_KEY_PREFIX=a__b": {
			`KEYGATE_KEY_PREFIX: "a__b" cannot start a key; allowed: 1 to 32 letters, digits and single underscores between them`,
		},
		"KEYGATE_BOOTSTRAP_KEY=" + good + " KEYGATE_BOOTSTRAP_KEY_FILE=/nowhere": {
			`KEYGATE_BOOTSTRAP_KEY: is set together with KEYGATE_BOOTSTRAP_KEY_FILE: unset one of them`,
		},
		"KEYGATE_BOOTSTRAP_KEY_FILE=/nowhere":       {`KEYGATE_BOOTSTRAP_KEY_FILE: "/nowhere" cannot be read: no such file or directory`},
		"KEYGATE_BOOTSTRAP_KEY_FILE=" + dir:         {`KEYGATE_BOOTSTRAP_KEY_FILE: "` + dir + `" cannot be read: is a directory`},
		"KEYGATE_BOOTSTRAP_KEY_FILE=" + empty:       {`KEYGATE_BOOTSTRAP_KEY_FILE: "` + empty + `" is an empty file`},
		"KEYGATE_BOOTSTRAP_KEY_FILE=" + big:         {`KEYGATE_BOOTSTRAP_KEY_FILE: "` + big + `" cannot be read: it is larger than 65536 bytes`},
		"KEYGATE_BOOTSTRAP_KEY_FILE=" + wrong:       {`KEYGATE_BOOTSTRAP_KEY_FILE: ` + notOurs},
		"KEYGATE_TRUSTED_PROXIES=10.0.0.1/8":        {`KEYGATE_TRUSTED_PROXIES: "10.0.0.1/8" holds "10.0.0.1/8", whose address has bits beyond the range: 10.0.0.0/8 is the range` + proxies},
		"KEYGATE_TRUSTED_PROXIES=10.0.0.0/8,":       {`KEYGATE_TRUSTED_PROXIES: "10.0.0.0/8," holds "", which is neither an address nor a CIDR range` + proxies},
		"KEYGATE_TRUSTED_PROXIES=fe80::1%eth0":      {`KEYGATE_TRUSTED_PROXIES: "fe80::1%eth0" holds "fe80::1%eth0", which is neither an address nor a CIDR range` + proxies},
		"KEYGATE_TRUSTED_PROXIES=::ffff:0.0.0.0/96": {`KEYGATE_TRUSTED_PROXIES: "::ffff:0.0.0.0/96" holds "::ffff:0.0.0.0/96": write IPv4 ranges as IPv4` + proxies},
		`KEYGATE_REALM=a"b`:                         {`KEYGATE_REALM: "a\"b" cannot stand in a header; allowed: 1 to 64 printable ASCII characters without quotes and backslashes`},
		"KEYGATE_CACHE_KEYS=0":                      {`KEYGATE_CACHE_KEYS: "0" is out of bounds; allowed: 1 to 10000000`},
		"KEYGATE_CACHE_KEYS=1e6":                    {`KEYGATE_CACHE_KEYS: "1e6" is not a whole number; allowed: 1 to 10000000`},
		"KEYGATE_DRAIN_TIMEOUT=30":                  {`KEYGATE_DRAIN_TIMEOUT: "30" has no unit: give ms, s, m or h, as in 30s; allowed: 0s to 1h, with its unit`},
		"KEYGATE_DRAIN_TIMEOUT=-1s":                 {`KEYGATE_DRAIN_TIMEOUT: "-1s" is out of bounds; allowed: 0s to 1h, with its unit`},
		"KEYGATE_DRAIN_TIMEOUT=soon":                {`KEYGATE_DRAIN_TIMEOUT: "soon" is not a duration such as 500ms, 30s, 1m or 24h; allowed: 0s to 1h, with its unit`},
		"KEYGATE_DRAIN_DELAY=2h":                    {`KEYGATE_DRAIN_DELAY: "2h" is out of bounds; allowed: 0s to 1h, with its unit`},
		"LOG_LEVEL=trace":                           {`LOG_LEVEL: "trace" is not a level; allowed: debug, info, warn or error`},
		"LOG_LEVEL=wran":                            {`LOG_LEVEL: "wran" is not a level; allowed: debug, info, warn or error; did you mean "warn"?`},
		"LOG_FORMAT=jsno":                           {`LOG_FORMAT: "jsno" is not a format; allowed: json or console; did you mean "json"?`},
		"LOG_FORMAT=text":                           {`LOG_FORMAT: "text" is not a format; allowed: json or console`},
		"LOG_FORMAT=":                               {`LOG_FORMAT: is set but empty: unset it or give it a value; allowed: json or console`},
		"KEYGATE_ADMIN_INSECURE= KEYGATE_ADMIN_ADDR=:1": {
			`KEYGATE_ADMIN_ADDR: ":1"` + exposed,
			`KEYGATE_ADMIN_INSECURE: is set but empty: unset it or give it a value; allowed: true or false`,
		},
		"KEYGATE_TLS_CERT=a KEYGATE_ADMIN_TLS_KEY=d": {
			`KEYGATE_TLS_CERT: is set without KEYGATE_TLS_KEY: set both`,
			`KEYGATE_ADMIN_TLS_KEY: is set without KEYGATE_ADMIN_TLS_CERT: set both`,
		},
		"KEYGATE_REQUIRE_HTTPS=true":       {`KEYGATE_REQUIRE_HTTPS: would refuse every request: set KEYGATE_TLS_CERT, or name in KEYGATE_TRUSTED_PROXIES who speaks HTTPS for keygate`},
		"KEYGATE_MAX_CONNECTIONS=0":        {`KEYGATE_MAX_CONNECTIONS: "0" is out of bounds; allowed: 1 to 1000000`},
		"KEYGATE_MAX_URL_BYTES=255":        {`KEYGATE_MAX_URL_BYTES: "255" is out of bounds; allowed: 256 to 65536`},
		"KEYGATE_MAX_REQUESTS_PER_KEY=0":   {`KEYGATE_MAX_REQUESTS_PER_KEY: "0" is out of bounds; allowed: 1 to 1000000`},
		"KEYGATE_CLIENT_READ_TIMEOUT=-1s":  {`KEYGATE_CLIENT_READ_TIMEOUT: "-1s" is out of bounds; allowed: 0s to 24h, with its unit; 0s is no bound`},
		"KEYGATE_CLIENT_MIN_RATE=1000001":  {`KEYGATE_CLIENT_MIN_RATE: "1000001" is out of bounds; allowed: 0 to 1000000; 0 is no bound`},
		"KEYGATE_CLIENT_WRITE_TIMEOUT=25h": {`KEYGATE_CLIENT_WRITE_TIMEOUT: "25h" is out of bounds; allowed: 0s to 24h, with its unit; 0s is no bound`},
		"KEYGATE_HSTS=-1s":                 {`KEYGATE_HSTS: "-1s" is out of bounds; allowed: 0s to 26280h, with its unit`},
		"KEYGATE_TLS_ADDR=x":               {`KEYGATE_TLS_ADDR: "x" has no port; allowed: host:port, or :port for all interfaces`},
		"KEYGATE_TLS_CERT=a KEYGATE_TLS_KEY=b KEYGATE_TLS_ADDR=:8080": {
			`KEYGATE_TLS_ADDR: ":8080" is taken by KEYGATE_ADDR, ":8080", which is plain HTTP: give another port`,
		},
		"KEYGATE_TLS_CERT=a KEYGATE_TLS_KEY=b KEYGATE_TLS_ADDR=:9090": {
			`KEYGATE_TLS_ADDR: ":9090" is taken by KEYGATE_ADMIN_ADDR, "127.0.0.1:9090": give another port`,
		},
		"KEYGATE_PORT=8080 KEYGATE_UPSTRAEM=pass KEYGATE_POLICYFILE=p KEYGATE_ZZZZZZ=y": {
			`KEYGATE_POLICYFILE: is unknown; did you mean "KEYGATE_POLICY_FILE"?`,
			`KEYGATE_PORT: is unknown; the port of the proxy is PORT, or part of KEYGATE_ADDR`,
			`KEYGATE_UPSTRAEM: is unknown; did you mean "KEYGATE_UPSTREAM"?`,
			`KEYGATE_ZZZZZZ: is unknown`,
		},
		"LOG_LEVEL=loud PORT=x KEYGATE_NONSENSE=1": { // in the order of the reference
			`PORT: "x" is not a whole number; allowed: 1 to 65535`,
			`LOG_LEVEL: "loud" is not a level; allowed: debug, info, warn or error`,
			`KEYGATE_NONSENSE: is unknown`,
		},
	} {
		t.Run(env, func(t *testing.T) {
			_, _, err := FromEnv(strings.Split(env, " "))
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("error is %v", err)
			}
			if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			for _, secret := range []string{"pass", "hunter2", good} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows %q", secret)
				}
			}
		})
	}
}

// TestRedis: with Redis nothing is kept on disk unless a directory is asked for,
// and the URL, which holds a password, is shown nowhere.
func TestRedis(t *testing.T) {
	c, _, err := FromEnv([]string{"REDIS_URL=rediss://:pass@redis:6379"})
	if err != nil || c.RedisURL.Reveal() != "rediss://:pass@redis:6379" || c.DataDir != "" {
		t.Fatalf("%+v %v", c, err)
	}
	if shown := fmt.Sprintf("%+v %#v", c, c.Describe()); strings.Contains(shown, "pass@") {
		t.Errorf("shown: %s", shown)
	}
	c, _, err = FromEnv([]string{"REDIS_URL=redis://redis", "KEYGATE_DATA_DIR=/data"})
	if err != nil || c.DataDir != "/data" {
		t.Fatalf("%+v %v", c, err)
	}
	_, _, err = FromEnv([]string{"REDIS_URL=redis://:pass@h", "REDIS_URL_FILE=f"})
	if err == nil || strings.Contains(err.Error(), "pass") {
		t.Errorf("both: %v", err)
	}
}

func TestClientFromEnv(t *testing.T) {
	c, err := ClientFromEnv([]string{"REDIS_URL=", "KEYGATE_ADDR=nonsense"})
	if err != nil || c.URL.String() != "http://127.0.0.1:9090" || c.Key != "" {
		t.Fatalf("%+v %v", c, err)
	}
	c, err = ClientFromEnv([]string{"KEYGATE_ADMIN_URL=https://keygate.internal/admin", "KEYGATE_ADMIN_KEY=imported.key"})
	if err != nil || c.URL.String() != "https://keygate.internal/admin" || c.Key.Reveal() != "imported.key" {
		t.Fatalf("%+v %v", c, err)
	}
	_, err = ClientFromEnv([]string{"KEYGATE_ADMIN_URL=keygate", "KEYGATE_ADMIN_KEY=two words", "KEYGATE_ADMIN_KY=x"})
	want := `KEYGATE_ADMIN_URL: "keygate" has no scheme http or https; allowed: an http or https URL without credentials, query and fragment
KEYGATE_ADMIN_KEY: cannot be a key: it holds a space or a character that is not printable ASCII
KEYGATE_ADMIN_KY: is unknown; did you mean "KEYGATE_ADMIN_KEY"?`
	if err == nil || err.Error() != want {
		t.Errorf("error is %v", err)
	}
}

// Whatever is in the environment: no panic, every problem names its variable,
// one problem for each.
func FuzzFromEnv(f *testing.F) {
	for _, name := range KnownVariables() {
		f.Add(name, "1", "KEYGATE_UNHEARD", "")
		f.Add(name, "http://user:secret@host?q#f", "PORT", "80")
	}
	f.Add("KEYGATE_TRUSTED_PROXIES", "10.0.0.0/8,::1,fe80::1%a", "KEYGATE_ADDR", "[::1%a]:80")
	f.Fuzz(func(t *testing.T, name, value, name2, value2 string) {
		if strings.HasSuffix(name, "_FILE") || strings.HasSuffix(name2, "_FILE") {
			return // it would read files of this machine
		}
		environ := []string{name + "=" + value, name2 + "=" + value2}
		c, _, err := FromEnv(environ)
		if _, clientErr := ClientFromEnv(environ); clientErr != nil {
			if _, ok := errors.AsType[*Error](clientErr); !ok {
				t.Errorf("error is %T: %v", clientErr, clientErr)
			}
		}
		if err == nil {
			if c.Addr == "" || c.CacheKeys < 1 || len(c.Describe()) == 0 {
				t.Errorf("%+v", c)
			}
			return
		}
		problems, ok := errors.AsType[*Error](err)
		if !ok || len(problems.Problems) == 0 {
			t.Fatalf("error is %T: %v", err, err)
		}
		seen := map[string]bool{}
		for _, p := range problems.Problems {
			if p.Subject == "" || p.Message == "" || seen[p.Subject] {
				t.Errorf("%+v in %v", p, problems.Problems)
			}
			seen[p.Subject] = true
		}
	})
}
