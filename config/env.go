// Package config reads what an operator sets: the environment, and the policy
// file that it names. What a value may be is decided by the types that use it
// (keys, ratelimit, route); config says where the wrong one stands.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"keygate/internal/keys"
	"keygate/proxy/route"
)

// Config is the environment of `keygate serve`. The tags are the reference:
// `keygate config` and docs/configuration.md show them, and errors quote what
// is allowed.
type Config struct {
	Port           int            `env:"PORT" allowed:"1 to 65535" doc:"Port of the proxy as hosting platforms set it: short for KEYGATE_ADDR=:PORT."`
	Addr           string         `env:"KEYGATE_ADDR" envDefault:":8080" allowed:"host:port, or :port for all interfaces" doc:"Address on which the proxy listens."`
	AdminAddr      string         `env:"KEYGATE_ADMIN_ADDR" envDefault:"127.0.0.1:9090" allowed:"host:port, or :port for all interfaces" doc:"Address of the management API, the dashboard, health checks and metrics."`
	AdminInsecure  bool           `env:"KEYGATE_ADMIN_INSECURE" envDefault:"false" allowed:"true or false" doc:"Lets the management address be other than loopback although it is plain HTTP. Administrator keys then cross that network in clear."`
	TLSAddr        string         `env:"KEYGATE_TLS_ADDR" envDefault:":8443" allowed:"host:port, or :port for all interfaces" doc:"Address on which the proxy listens for HTTPS, where KEYGATE_TLS_CERT is set."`
	TLSCert        string         `env:"KEYGATE_TLS_CERT" allowed:"the path of a PEM file; together with KEYGATE_TLS_KEY" doc:"Certificate of the proxy, with those that lead from it to a root. It makes the proxy listen for HTTPS; changed files are read anew without dropping a connection."`
	TLSKey         string         `env:"KEYGATE_TLS_KEY" allowed:"the path of a PEM file; together with KEYGATE_TLS_CERT" doc:"Private key of that certificate."`
	AdminTLSCert   string         `env:"KEYGATE_ADMIN_TLS_CERT" allowed:"the path of a PEM file; together with KEYGATE_ADMIN_TLS_KEY" doc:"Certificate of the management listener, which then speaks HTTPS only."`
	AdminTLSKey    string         `env:"KEYGATE_ADMIN_TLS_KEY" allowed:"the path of a PEM file; together with KEYGATE_ADMIN_TLS_CERT" doc:"Private key of that certificate."`
	RequireHTTPS   bool           `env:"KEYGATE_REQUIRE_HTTPS" envDefault:"false" allowed:"true or false" doc:"Refuses requests that came over plain HTTP, and reports the key that they carried as exposed. What a proxy of KEYGATE_TRUSTED_PROXIES says of the scheme counts (X-Forwarded-Proto)."`
	PauseExposed   bool           `env:"KEYGATE_PAUSE_EXPOSED_KEYS" envDefault:"false" allowed:"true or false" doc:"Pauses a key that was reported as exposed: it stood in a URL, or came in clear where KEYGATE_REQUIRE_HTTPS is set. Whoever knows a key can then pause it."`
	HSTS           time.Duration  `env:"KEYGATE_HSTS" envDefault:"8760h" allowed:"0s to 26280h, with its unit" doc:"How long clients shall use HTTPS only (Strict-Transport-Security, RFC 6797): said on each answer over HTTPS. 0s says nothing."`
	DataDir        string         `env:"KEYGATE_DATA_DIR" envDefault:"./data" allowed:"a directory; it is created if it is missing" doc:"Where the embedded store keeps keys, accounts and usage. With REDIS_URL there is none unless it is set; generated keys are then written there."`
	CrashWait      bool           `env:"KEYGATE_WAIT_AFTER_CRASH" envDefault:"false" allowed:"true or false" doc:"After a crash, with the embedded store: sliding limits of strict plans give nothing until all is past that may have been spent before (the longest of their windows and 2 s more). With false they start anew. Calendar quotas go on either way."`
	RedisURL       Secret         `env:"REDIS_URL" allowed:"a redis, rediss, unix, redis+sentinel or redis+cluster URL; not together with REDIS_URL_FILE" doc:"Redis through which any number of replicas share keys, limits and revocations. Without it one replica runs on the embedded store."`
	RedisFile      string         `env:"REDIS_URL_FILE" allowed:"the path of a file that holds such a URL; not together with REDIS_URL" doc:"Path of a file that holds the URL of Redis."`
	Upstream       *url.URL       `env:"KEYGATE_UPSTREAM" allowed:"an http or https URL without credentials, query and fragment" doc:"The API that keygate stands in front of, for routes that name no upstream. Without it and without a policy a small demonstration API answers."`
	Policy         string         `env:"KEYGATE_POLICY" allowed:"the YAML of a policy, at most 4 MiB; not together with KEYGATE_POLICY_FILE" doc:"The policy itself."`
	PolicyFile     string         `env:"KEYGATE_POLICY_FILE" allowed:"the path of a policy file, at most 4 MiB; not together with KEYGATE_POLICY" doc:"Path of the policy file. Without a policy every path is forwarded for any valid key."`
	PolicyWatch    bool           `env:"KEYGATE_POLICY_WATCH" envDefault:"true" allowed:"true or false" doc:"Reloads the policy when its file changes. With false only SIGHUP does."`
	DefaultPlan    string         `env:"KEYGATE_DEFAULT_PLAN" envDefault:"free" allowed:"the name of a plan of the policy" doc:"Plan of organizations for which no other was chosen."`
	KeyPrefix      string         `env:"KEYGATE_KEY_PREFIX" envDefault:"kg_live" allowed:"1 to 32 letters, digits and single underscores between them" doc:"What new keys start with. Keys with another prefix are refused, those made under a former prefix too."`
	BootstrapKey   Secret         `env:"KEYGATE_BOOTSTRAP_KEY" allowed:"a key as 'keygate keys generate' prints one, with the prefix of KEYGATE_KEY_PREFIX; not together with KEYGATE_BOOTSTRAP_KEY_FILE" doc:"The first administrator key. Without it keygate makes one at the first start."`
	BootstrapFile  string         `env:"KEYGATE_BOOTSTRAP_KEY_FILE" allowed:"the path of a file that holds such a key; not together with KEYGATE_BOOTSTRAP_KEY" doc:"Path of a file that holds the first administrator key."`
	TrustedProxies []netip.Prefix `env:"KEYGATE_TRUSTED_PROXIES" allowed:"addresses and CIDR ranges, separated by commas" doc:"Proxies in front of keygate that are believed about the client's address (X-Forwarded-For). Without it the peer is the client."`
	Realm          string         `env:"KEYGATE_REALM" envDefault:"keygate" allowed:"1 to 64 printable ASCII characters without quotes and backslashes" doc:"Realm in the WWW-Authenticate header of refusals."`
	CacheKeys      int            `env:"KEYGATE_CACHE_KEYS" envDefault:"100000" allowed:"1 to 10000000" doc:"Number of keys held in memory."`
	Me             bool           `env:"KEYGATE_ME" envDefault:"true" allowed:"true or false" doc:"Lets a key ask the proxy about itself at /.keygate/me, and keeps all of /.keygate/ from the routes. With false both end."`
	FailedPerAddr  route.Budget   `env:"KEYGATE_FAILED_PER_ADDRESS" envDefault:"100/1m" allowed:"requests per duration, such as 100/1m, or off" doc:"Budget that one client address (IPv6: one /64) has for requests that fail: with a key that does not exist, to where no route is. What is beyond it is answered 429; valid keys are served all the same, imported ones as far as they are in memory."`
	MaxConnections int            `env:"KEYGATE_MAX_CONNECTIONS" envDefault:"10000" allowed:"1 to 1000000" doc:"Connections of clients that each listener of the proxy holds open; more are closed at once."`
	MaxPerKey      int            `env:"KEYGATE_MAX_REQUESTS_PER_KEY" envDefault:"1000" allowed:"1 to 1000000" doc:"Requests of one key, WebSocket connections and other streams among them, that are under way in this process. One more is answered 429, so that no key takes the connections of all."`
	MaxURL         int            `env:"KEYGATE_MAX_URL_BYTES" envDefault:"8192" allowed:"256 to 65536" doc:"Longest target of a request, path and query together, in bytes. A longer one is answered 414."`
	ReadTimeout    time.Duration  `env:"KEYGATE_CLIENT_READ_TIMEOUT" envDefault:"1m" allowed:"0s to 24h, with its unit; 0s is no bound" doc:"How long a client may be waited for, in all, while a request's body is read, before it is answered 408; what it sends wins time back (KEYGATE_CLIENT_MIN_RATE). Once the answer has begun it no longer counts, nor for gRPC over HTTP/2, whose streams may be silent."`
	WriteTimeout   time.Duration  `env:"KEYGATE_CLIENT_WRITE_TIMEOUT" envDefault:"1m" allowed:"0s to 24h, with its unit; 0s is no bound" doc:"How long a client may be waited for, in all, until it takes the next piece of an answer, of at most 32 KiB, before it is cut off; what it takes wins time back (KEYGATE_CLIENT_MIN_RATE). A stream in which nothing is sent is not."`
	ClientMinRate  int            `env:"KEYGATE_CLIENT_MIN_RATE" envDefault:"240" allowed:"0 to 1000000; 0 is no bound" doc:"Bytes a second that a client must send of a request's body, and take of an answer, while it is waited for: time in which the upstream or keygate is the slow one does not count. Who has been slower for as long as KEYGATE_CLIENT_READ_TIMEOUT or KEYGATE_CLIENT_WRITE_TIMEOUT is cut off like one who does nothing. With 0 a single byte gives the whole time anew."`
	DrainTimeout   time.Duration  `env:"KEYGATE_DRAIN_TIMEOUT" envDefault:"25s" allowed:"0s to 1h, with its unit" doc:"How long requests in flight may take to finish after the signal to stop. Make it 5 s less than what the program is given before it is killed (Kubernetes: terminationGracePeriodSeconds, 30 s by default)."`
	DrainDelay     time.Duration  `env:"KEYGATE_DRAIN_DELAY" envDefault:"1s" allowed:"0s to 1h, with its unit" doc:"How long of that new connections are still accepted, while /readyz says 503 and every answer that its connection ends: whoever balances the load shall have noticed by then."`
	LogLevel       string         `env:"LOG_LEVEL" envDefault:"info" allowed:"debug, info, warn or error" doc:"Least severe messages that are logged."`
	LogFormat      string         `env:"LOG_FORMAT" allowed:"json or console" doc:"Form of the log. Without it console on a terminal and json elsewhere."`

	set map[string]bool // variables that the environment had
}

const (
	maxCacheKeys = 10_000_000
	maxDrain     = time.Hour
	maxRealm     = 64

	maxConnections   = 1_000_000
	minURL, maxURL   = 256, 64 << 10
	maxClientTimeout = 24 * time.Hour
	maxClientRate    = 1_000_000
	maxHSTS          = 3 * 8760 * time.Hour
)

// FromEnv reads the environment, given as os.Environ returns it. The warnings
// are for the log. The error is an *Error with every mistake; the policy is
// read by LoadPolicy.
func FromEnv(environ []string) (c Config, warnings []string, err error) {
	r := read(environ, &c)
	c.set = make(map[string]bool)
	for _, s := range r.settings {
		_, c.set[s.name] = r.vars[s.name]
	}

	c.checkListeners(r)
	r.secret("REDIS_URL", &c.RedisURL, c.RedisFile)
	if c.RedisURL != "" && !c.set["KEYGATE_DATA_DIR"] {
		c.DataDir = ""
	}
	r.exclusive("KEYGATE_POLICY", "KEYGATE_POLICY_FILE")
	r.check("KEYGATE_POLICY", len(c.Policy) <= maxPolicy, "is larger than 4 MiB")
	c.checkBootstrapKey(r)
	r.check("KEYGATE_REALM", len(c.Realm) <= maxRealm && isPrintable(c.Realm) && !strings.ContainsAny(c.Realm, `"\`), "cannot stand in a header")
	r.check("KEYGATE_CACHE_KEYS", c.CacheKeys >= 1 && c.CacheKeys <= maxCacheKeys, "is out of bounds")
	r.check("KEYGATE_DRAIN_TIMEOUT", c.DrainTimeout >= 0 && c.DrainTimeout <= maxDrain, "is out of bounds")
	r.check("KEYGATE_DRAIN_DELAY", c.DrainDelay >= 0 && c.DrainDelay <= maxDrain, "is out of bounds")
	r.check("KEYGATE_MAX_CONNECTIONS", c.MaxConnections >= 1 && c.MaxConnections <= maxConnections, "is out of bounds")
	r.check("KEYGATE_MAX_URL_BYTES", c.MaxURL >= minURL && c.MaxURL <= maxURL, "is out of bounds")
	r.check("KEYGATE_MAX_REQUESTS_PER_KEY", c.MaxPerKey >= 1 && c.MaxPerKey <= maxConnections, "is out of bounds")
	r.check("KEYGATE_CLIENT_READ_TIMEOUT", c.ReadTimeout >= 0 && c.ReadTimeout <= maxClientTimeout, "is out of bounds")
	r.check("KEYGATE_CLIENT_WRITE_TIMEOUT", c.WriteTimeout >= 0 && c.WriteTimeout <= maxClientTimeout, "is out of bounds")
	r.check("KEYGATE_CLIENT_MIN_RATE", c.ClientMinRate >= 0 && c.ClientMinRate <= maxClientRate, "is out of bounds")
	r.check("KEYGATE_HSTS", c.HSTS >= 0 && c.HSTS <= maxHSTS, "is out of bounds")
	c.checkHTTPS(r)
	r.choice("LOG_LEVEL", c.LogLevel, "is not a level", "debug", "info", "warn", "error")
	r.choice("LOG_FORMAT", c.LogFormat, "is not a format", "json", "console")
	return c, r.warnings, r.err()
}

// checkListeners settles where the two listeners are.
func (c *Config) checkListeners(r *reading) {
	r.check("PORT", !c.set["PORT"] || c.Port >= 1 && c.Port <= 65535, "is out of bounds")
	addr, err := parseListen(c.Addr)
	r.checkErr("KEYGATE_ADDR", err)
	admin, adminErr := parseListen(c.AdminAddr)
	r.checkErr("KEYGATE_ADMIN_ADDR", adminErr)

	if c.set["PORT"] && !r.failed["PORT"] {
		switch {
		case !c.set["KEYGATE_ADDR"]:
			c.Addr = fmt.Sprintf(":%d", c.Port)
			c.set["KEYGATE_ADDR"] = true
			addr, err = parseListen(c.Addr)
		case err == nil && addr.port != c.Port:
			r.reject("KEYGATE_ADDR", fmt.Sprintf("%s is another port than PORT=%d: unset one of them", quoted(c.Addr), c.Port))
		}
	}
	if adminErr == nil && !admin.loopback() && !c.AdminInsecure && c.AdminTLSCert == "" {
		r.reject("KEYGATE_ADMIN_ADDR", quoted(c.AdminAddr)+" can be reached from other machines over plain HTTP, which shows administrator keys to the network; "+
			"allowed: a loopback address such as 127.0.0.1:9090, or any address together with KEYGATE_ADMIN_TLS_CERT or KEYGATE_ADMIN_INSECURE=true")
	}
	if err == nil && adminErr == nil && addr.overlaps(admin) {
		r.reject("KEYGATE_ADMIN_ADDR", fmt.Sprintf("%s is taken by the proxy, which listens on %s: give another port", quoted(c.AdminAddr), quoted(c.Addr)))
	}
	secure, secureErr := parseListen(c.TLSAddr)
	r.checkErr("KEYGATE_TLS_ADDR", secureErr)
	if c.TLSCert == "" || secureErr != nil {
		return
	}
	if err == nil && secure.overlaps(addr) {
		r.reject("KEYGATE_TLS_ADDR", fmt.Sprintf("%s is taken by KEYGATE_ADDR, %s, which is plain HTTP: give another port", quoted(c.TLSAddr), quoted(c.Addr)))
	}
	if adminErr == nil && secure.overlaps(admin) {
		r.reject("KEYGATE_TLS_ADDR", fmt.Sprintf("%s is taken by KEYGATE_ADMIN_ADDR, %s: give another port", quoted(c.TLSAddr), quoted(c.AdminAddr)))
	}
}

// checkHTTPS wants certificates with their keys, and somebody who speaks HTTPS
// where nothing else is served.
func (c *Config) checkHTTPS(r *reading) {
	for _, pair := range [...]struct{ cert, key, certFile, keyFile string }{
		{"KEYGATE_TLS_CERT", "KEYGATE_TLS_KEY", c.TLSCert, c.TLSKey},
		{"KEYGATE_ADMIN_TLS_CERT", "KEYGATE_ADMIN_TLS_KEY", c.AdminTLSCert, c.AdminTLSKey},
	} {
		switch {
		case pair.certFile != "" && pair.keyFile == "":
			r.reject(pair.cert, "is set without "+pair.key+": set both")
		case pair.certFile == "" && pair.keyFile != "":
			r.reject(pair.key, "is set without "+pair.cert+": set both")
		}
	}
	if c.RequireHTTPS && c.TLSCert == "" && len(c.TrustedProxies) == 0 {
		r.reject("KEYGATE_REQUIRE_HTTPS", "would refuse every request: set KEYGATE_TLS_CERT, or name in KEYGATE_TRUSTED_PROXIES who speaks HTTPS for keygate")
	}
}

// checkBootstrapKey takes the key from its file, if one is named, and wants a
// well-formed one: a mistyped key would lock the operator out.
func (c *Config) checkBootstrapKey(r *reading) {
	format, err := keys.NewFormat(c.KeyPrefix)
	r.check("KEYGATE_KEY_PREFIX", err == nil, "cannot start a key")
	name := r.secret("KEYGATE_BOOTSTRAP_KEY", &c.BootstrapKey, c.BootstrapFile)
	c.set["KEYGATE_BOOTSTRAP_KEY"] = c.BootstrapKey != ""
	if c.BootstrapKey != "" && err == nil && !format.Valid(c.BootstrapKey.Reveal()) {
		r.reject(name, fmt.Sprintf("is not a key of this instance: it must start with %s_ and have a matching checksum; 'keygate keys generate' prints one", c.KeyPrefix))
	}
}

// Client is the environment of the commands that talk to the management API of
// a running keygate.
type Client struct {
	URL     *url.URL `env:"KEYGATE_ADMIN_URL" envDefault:"http://127.0.0.1:9090" allowed:"an http or https URL without credentials, query and fragment" doc:"Where the command line finds the management API."`
	Key     Secret   `env:"KEYGATE_ADMIN_KEY" allowed:"a key; not together with KEYGATE_ADMIN_KEY_FILE" doc:"The key that the command line uses."`
	KeyFile string   `env:"KEYGATE_ADMIN_KEY_FILE" allowed:"the path of a file that holds a key; not together with KEYGATE_ADMIN_KEY" doc:"Path of a file that holds that key."`
	// Insecure is a variable of the server too.
	Insecure bool `env:"KEYGATE_ADMIN_INSECURE" envDefault:"false" allowed:"true or false" doc:"Lets the command line send its key over plain HTTP to a machine other than this one. Whoever is on that network can then read it."`
}

// ClientFromEnv reads the environment of the command line. Variables of the
// server are not looked at. The error is an *Error.
func ClientFromEnv(environ []string) (Client, error) {
	var c Client
	r := read(environ, &c)
	name := r.secret("KEYGATE_ADMIN_KEY", &c.Key, c.KeyFile)
	if c.Key != "" && (!isPrintable(c.Key.Reveal()) || strings.Contains(c.Key.Reveal(), " ")) {
		r.reject(name, "cannot be a key: it holds a space or a character that is not printable ASCII")
	}
	return c, r.err()
}

// Secret is a value that no log and no error message shows.
type Secret string

const hidden = "(set)"

// Reveal returns the value itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the value from JSON and structured logs.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// secret takes a secret from its variable or from the file that its twin
// names, and returns the name of the variable that is answerable for it.
func (r *reading) secret(name string, into *Secret, path string) (answerable string) {
	file := name + "_FILE"
	r.exclusive(name, file)
	if path == "" || r.failed[name] || r.failed[file] {
		return name
	}
	data, err := readBounded(path, maxSecret)
	if err != nil {
		r.reject(file, fmt.Sprintf("%s cannot be read: %s", quoted(path), reason(err)))
		return file
	}
	// Editors and echo end the file with a line break that is no part of it.
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		r.reject(file, fmt.Sprintf("%s is an empty file", quoted(path)))
	}
	*into = Secret(text)
	return file
}

// reason is an error of the file system without the path, which the message
// names already.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}
