package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"keygate/internal/keys"
	"keygate/proxy/route"
	"keygate/proxy/upstream"
)

// Policy is a policy file, checked and ready for use: immutable, a reload makes
// another.
type Policy struct {
	Keys  *keys.Policy
	Table *route.Table
	// Rules are the routes in the order of the file.
	Rules []*route.Rule
	// Upstreams by the name that rules use; OwnUpstream is among them if
	// KEYGATE_UPSTREAM is set or if there is no policy.
	Upstreams map[string]upstream.Options
	// Digest is the same for two policies that decide alike: SHA-256, hex, of
	// the policy's bytes and the default plan.
	Digest string
	// Files are those that the policy names, as they were read. What is in them is
	// no part of the Digest: each replica may have a certificate of its own.
	Files []File
}

// OwnUpstream is the name of the upstream that KEYGATE_UPSTREAM gives. No
// upstream of a file can be called this. It has no target where there is neither
// policy nor KEYGATE_UPSTREAM: the demonstration API answers.
const OwnUpstream = ""

// builtinPolicy holds where no policy is given. Plans, permissions and the role
// owner are built in anyway.
const builtinPolicy = `version: 1
routes:
  - match: "/{path...}"
    permission: any
`

// LoadPolicy reads the policy that the environment names or holds, or takes the
// built-in one. The error is an *Error.
func LoadPolicy(cfg Config) (*Policy, error) {
	surroundings := surroundings{defaultPlan: cfg.DefaultPlan}
	if cfg.Upstream != nil || cfg.PolicyFile == "" && cfg.Policy == "" {
		own := newUpstream(OwnUpstream)
		if cfg.Upstream != nil {
			own.Targets = []*url.URL{cfg.Upstream}
		}
		surroundings.upstream = &own
	}
	name, data, err := cfg.readPolicy()
	if err != nil {
		return nil, err
	}
	return surroundings.parse(name, data)
}

// PolicyDigest is the Digest that LoadPolicy's policy would have if it is a good
// one. The error is an *Error.
func PolicyDigest(cfg Config) (string, error) {
	_, data, err := cfg.readPolicy()
	if err != nil {
		return "", err
	}
	return digest(cfg.DefaultPlan, data), nil
}

// readPolicy returns the policy's bytes, and how errors call it.
func (c Config) readPolicy() (name string, data []byte, err error) {
	switch {
	case c.PolicyFile != "":
		if data, err = readBounded(c.PolicyFile, maxPolicy); err != nil {
			message := fmt.Sprintf("%s cannot be read: %s", quoted(c.PolicyFile), reason(err))
			return "", nil, &Error{Problems: []Problem{{Subject: "KEYGATE_POLICY_FILE", Message: message}}}
		}
		return c.PolicyFile, data, nil
	case c.Policy != "":
		return "KEYGATE_POLICY", []byte(c.Policy), nil
	}
	return "the built-in policy", []byte(builtinPolicy), nil
}

// ParsePolicy reads a policy as it stands for itself: with the default plan
// "free" and no KEYGATE_UPSTREAM. The name is how errors call the file. The
// error is an *Error with the place of every mistake, in the file's order.
func ParsePolicy(name string, data []byte) (*Policy, error) {
	return surroundings{defaultPlan: keys.PlanFree}.parse(name, data)
}

// surroundings are the parts of the environment that a policy is read in.
type surroundings struct {
	defaultPlan string
	upstream    *upstream.Options // nil: routes must go to upstreams of the file
}

func (s surroundings) parse(name string, data []byte) (*Policy, error) {
	d := &decoder{file: name}
	root, ok := d.parse(data)
	if !ok {
		return nil, d.err()
	}
	top, ok := d.fields(root, policyForm)
	if !ok {
		return nil, d.err()
	}
	if v, ok := top["version"]; ok {
		if n, ok := d.integer(v); !ok || n != 1 {
			if ok {
				d.fail(v, "is %d; this keygate reads version 1", n)
			}
			return nil, &Error{Problems: d.problems[len(d.problems)-1:]} // the rest of another version would be judged by the wrong rules
		}
	}

	p := &Policy{Keys: &keys.Policy{DefaultPlan: s.defaultPlan}}
	p.Upstreams = d.upstreams(top["upstreams"])
	p.Keys.Catalogue = d.permissions(top["permissions"])
	p.Keys.Roles = d.roles(top["roles"], p.Keys)
	p.Keys.Plans = d.plans(top["plans"])
	if _, ok := p.Keys.Plans[s.defaultPlan]; !ok {
		known := slices.Sorted(maps.Keys(p.Keys.Plans))
		d.problems = append(d.problems, Problem{Subject: "KEYGATE_DEFAULT_PLAN", Message: fmt.Sprintf(
			"%s is not a plan of %s; allowed: %s%s", quoted(s.defaultPlan), name, oneOf(known), d.didYouMean(s.defaultPlan, known))})
	}
	routes := &routeDecoder{decoder: d, policy: p.Keys, targets: p.Upstreams}
	routes.fallback, routes.hasFallback = s.fallback(p.Upstreams)
	p.Rules, p.Table = routes.routes(top["routes"])
	if err := d.err(); err != nil {
		return nil, err
	}
	if s.upstream != nil {
		p.Upstreams[OwnUpstream] = *s.upstream
	}
	p.Digest, p.Files = digest(s.defaultPlan, data), d.files
	return p, nil
}

// fallback is where a route goes that names no upstream.
func (s surroundings) fallback(ofFile map[string]upstream.Options) (name string, ok bool) {
	if len(ofFile) == 1 {
		for name := range ofFile {
			return name, true
		}
	}
	return OwnUpstream, s.upstream != nil
}

func digest(defaultPlan string, data []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "keygate policy 1\n%q\n", defaultPlan)
	h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// maxNameLength bounds the names of upstreams, roles and plans; they stand in
// headers, metrics and addresses.
const maxNameLength = 63

// named lists the entries of an optional mapping whose keys are names; those
// with a wrong name too, because the rest of the file refers to them.
func (d *decoder) named(v value) []entry {
	if v.node == nil {
		return nil
	}
	entries, _ := d.mapping(v)
	for _, e := range entries {
		ok := len(e.name) <= maxNameLength
		for _, c := range []byte(e.name) {
			ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-')
		}
		if !ok {
			d.fail(e.key, "is no name; allowed are 1 to %d letters, digits, '.', '_' and '-'", maxNameLength)
		}
	}
	return entries
}
