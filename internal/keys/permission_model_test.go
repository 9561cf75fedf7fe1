package keys_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"keygate/internal/keys"
)

// model is the permission algebra once more, written from its description with
// sets of strings and no thought for speed, to hold the real one against.
type model map[string]keys.Permission

type names map[string]bool

func (n names) sorted() []string {
	out := make([]string, 0, len(n))
	for name := range n {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func modelBuiltins() model {
	m := model{
		"read:all":  {Implies: []string{"*:read"}},
		"write:all": {Implies: []string{"*:write", "*:create", "*:update"}},
		"admin":     {Administrative: true, Implies: []string{"*", "keygate:*"}},
	}
	for _, action := range []string{"keys-read", "keys-write", "members", "usage", "audit", "operator"} {
		m["keygate:"+action] = keys.Permission{Administrative: true}
	}
	return m
}

var (
	nameForm     = regexp.MustCompile(`^[A-Za-z0-9._-]+:[A-Za-z0-9._-]+$`)
	wildcardForm = regexp.MustCompile(`^(\*|\*:[A-Za-z0-9._-]+|[A-Za-z0-9._-]+:\*)$`)
)

// newModel reports false where the description calls for a load error.
func newModel(own []keys.Permission) (model, bool) {
	m, builtins, seen := modelBuiltins(), modelBuiltins(), names{}
	for _, p := range own {
		if p.Name != "admin" && !nameForm.MatchString(p.Name) || strings.HasPrefix(p.Name, "keygate:") || len(p.Name) > 100 || seen[p.Name] {
			return nil, false
		}
		seen[p.Name] = true
		m[p.Name] = p
	}
	for name, p := range m {
		for _, implied := range p.Implies {
			mayBeEmpty := slices.Contains(builtins[name].Implies, implied)
			if implied == "keygate:operator" || !m.grantable(implied) && !mayBeEmpty {
				return nil, false
			}
		}
		if m.reachesByName(name, name, names{}) {
			return nil, false
		}
	}
	return m, true
}

func (m model) has(name string) bool { _, ok := m[name]; return ok }

func (m model) grantable(grant string) bool {
	return m.has(grant) || len(grant) <= 100 && wildcardForm.MatchString(grant) && len(m.matched(grant)) > 0
}

func (m model) reachesByName(from, to string, visited names) bool {
	for _, implied := range m[from].Implies {
		if !m.has(implied) || visited[implied] {
			continue
		}
		if implied == to {
			return true
		}
		visited[implied] = true
		if m.reachesByName(implied, to, visited) {
			return true
		}
	}
	return false
}

// matched is what a grant stands for, before what those entries imply.
func (m model) matched(grant string) names {
	out := names{}
	for name, p := range m {
		own := strings.HasPrefix(name, "keygate:")
		plain := !p.Administrative && len(p.Implies) == 0 && name != "admin"
		switch {
		case grant == name:
			out[name] = true
		case grant == "*":
			out[name] = !own && name != "admin"
		case grant == "keygate:*":
			out[name] = own && name != "keygate:operator"
		case strings.HasPrefix(grant, "*:"):
			out[name] = plain && strings.HasSuffix(name, grant[1:])
		case strings.HasSuffix(grant, ":*"):
			out[name] = plain && strings.HasPrefix(name, grant[:len(grant)-1])
		}
		if !out[name] {
			delete(out, name)
		}
	}
	return out
}

// expand grows the set until nothing more is implied.
func (m model) expand(grants []string) names {
	out := names{}
	for grown := true; grown; {
		before := len(out)
		for name := range out {
			grants = append(slices.Clip(grants), m[name].Implies...)
		}
		slices.Sort(grants)
		grants = slices.Compact(grants)
		for _, g := range grants {
			for name := range m.matched(g) {
				out[name] = true
			}
		}
		grown = len(out) > before
	}
	return out
}

// Few resources and actions, so that names meet wildcards often.
var (
	segments = []string{"a", "b", "keygate", "admin", "read", "all", "a.b"}
	actions  = []string{"read", "write", "create", "update", "x", "all", "operator", "members"}
)

func genGrant() *rapid.Generator[string] {
	pick := func(of []string, more ...string) *rapid.Generator[string] {
		return rapid.SampledFrom(slices.Concat(of, more))
	}
	return rapid.Custom(func(t *rapid.T) string {
		switch rapid.IntRange(0, 9).Draw(t, "form") {
		case 0:
			return pick([]string{"*", "admin", "read:all", "write:all", "keygate:*"}).Draw(t, "special")
		case 1:
			return pick([]string{"", ":", "*:*", "a", "a:", ":x", "**", "a:*:x", "a*:x", "a:b:c", "*:", strings.Repeat("a", 100) + ":*"}).Draw(t, "odd")
		case 2, 3:
			return "*:" + pick(actions).Draw(t, "action")
		case 4, 5:
			return pick(segments).Draw(t, "resource") + ":*"
		}
		return pick(segments).Draw(t, "resource") + ":" + pick(actions).Draw(t, "action")
	})
}

func genPermissions() *rapid.Generator[[]keys.Permission] {
	name := rapid.Custom(func(t *rapid.T) string {
		switch rapid.IntRange(0, 60).Draw(t, "form") {
		case 0:
			return genGrant().Draw(t, "name")
		case 1, 2, 3:
			return rapid.SampledFrom([]string{"read:all", "write:all", "admin"}).Draw(t, "replaced")
		}
		return rapid.SampledFrom([]string{"a", "b", "admin", "read", "a.b"}).Draw(t, "resource") + ":" + rapid.SampledFrom(actions).Draw(t, "action")
	})
	return rapid.Custom(func(t *rapid.T) []keys.Permission {
		var own []keys.Permission
		for _, n := range rapid.SliceOfNDistinct(name, 0, 8, rapid.ID[string]).Draw(t, "names") {
			own = append(own, keys.Permission{Name: n, Administrative: rapid.IntRange(0, 3).Draw(t, "administrative") == 0})
		}
		for i := range own {
			if len(own) > 0 && rapid.IntRange(0, 2).Draw(t, "implies") == 0 {
				// Mostly what exists, or a catalogue would hardly ever load.
				known := rapid.Map(rapid.SampledFrom(own), func(p keys.Permission) string {
					return p.Name
				})
				own[i].Implies = rapid.SliceOfN(rapid.OneOf(known, known, known, genGrant()), 0, 3).Draw(t, "implied")
			}
		}
		if rapid.IntRange(0, 40).Draw(t, "twice") == 0 && len(own) > 0 {
			own = append(own, own[0])
		}
		// Sets of more than one and two machine words.
		for i := range rapid.SampledFrom([]int{0, 0, 50, 60, 130}).Draw(t, "more") {
			own = append(own, keys.Permission{Name: "m" + strings.Repeat("m", i%90) + ":" + actions[i%3] + strings.Repeat("n", i/90)})
		}
		return own
	})
}

func TestCatalogueAgainstModel(t *testing.T) {
	loaded, refused, expanded := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		own := genPermissions().Draw(t, "own")
		m, ok := newModel(own)
		c, err := keys.NewCatalogue(own)
		if (err == nil) != ok {
			t.Fatalf("NewCatalogue: %v; the model says valid: %t", err, ok)
		}
		if !ok {
			refused++
			return
		}
		loaded++

		var all []string
		for i, p := range c.Entries() {
			all = append(all, p.Name)
			if at, ok := c.Index(p.Name); !ok || at != i {
				t.Fatalf("Index(%q) = %d, %t; it stands at %d", p.Name, at, ok, i)
			}
		}
		inModel := names{}
		for name := range m {
			inModel[name] = true
		}
		if diff := cmp.Diff(inModel.sorted(), all); diff != "" {
			t.Fatalf("entries (-model +real):\n%s", diff)
		}

		grants := rapid.SliceOfN(genGrant(), 0, 4)
		left, right := grants.Draw(t, "left"), grants.Draw(t, "right")
		for _, g := range slices.Concat(left, right) {
			if err := c.Check(g); (err == nil) != m.grantable(g) {
				t.Fatalf("Check(%q): %v; the model says grantable: %t", g, err, m.grantable(g))
			}
		}
		a, b := c.Expand(left), c.Expand(right)
		inA, inB := m.expand(left), m.expand(right)
		expanded += len(inA)
		both, either := names{}, names{}
		for name := range m {
			if inA[name] && inB[name] {
				both[name] = true
			}
			if inA[name] || inB[name] {
				either[name] = true
			}
		}
		for _, tt := range []struct {
			what string
			got  keys.Set
			want names
		}{
			{"and", a.And(b), both},
			{"or", a.Or(b), either},
			{"or nothing", a.Or(nil), inA},
			{"nothing or", keys.Set(nil).Or(b), inB},
			{"and nothing", a.And(nil), names{}},
			{"left", a, inA}, // after the operations: they change neither operand
			{"right", b, inB},
		} {
			if diff := cmp.Diff(tt.want.sorted(), c.Names(tt.got)); diff != "" {
				t.Fatalf("%s of %q and %q (-model +real):\n%s", tt.what, left, right, diff)
			}
		}
	})
	if !testing.Short() && (loaded < 10 || refused < 10 || expanded < 10) {
		t.Errorf("drawn %d loadable and %d refused catalogues, %d entries granted: the property was hardly tested", loaded, refused, expanded)
	}
}

// What a request may do is what the key holds, as far as its owner holds it at
// the organization or, where the route binds a space, at that space.
func TestCeilingAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		own := []keys.Permission{{Name: "a:read"}, {Name: "a:write"}, {Name: "b:read"}, {Name: "b:x", Administrative: true}, {Name: "b:all", Implies: []string{"a:*"}}}
		m, ok := newModel(own)
		c, err := keys.NewCatalogue(own)
		if err != nil || !ok {
			t.Fatal(err, ok)
		}
		entry := rapid.OneOf(genGrant(), rapid.SampledFrom([]string{"keygate:operator", "a:read", "b:all", "*"}))
		roles := map[string][]string{"owner": {"admin"}}
		for _, name := range []string{"viewer", "editor"} {
			roles[name] = rapid.SliceOfN(entry, 0, 3).Draw(t, name)
		}
		p := keys.Policy{Catalogue: c, Roles: roles}

		organizations, spaces := rapid.SampledFrom([]string{"", "org_1", "org_2"}), rapid.SampledFrom([]string{"", "spc_1", "spc_2"})
		grants := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) keys.Grant {
			g := keys.Grant{Organization: organizations.Draw(t, "organization")}
			if g.Organization != "" {
				g.Space = spaces.Draw(t, "space")
			}
			if rapid.Bool().Draw(t, "a role") {
				g.Role = rapid.SampledFrom([]string{"owner", "viewer", "editor", "gone"}).Draw(t, "role")
			} else {
				g.Permission = entry.Draw(t, "permission")
			}
			return g
		}), 0, 5).Draw(t, "grants")

		for _, organization := range []string{"", "org_1", "org_2", "org_3"} {
			for _, space := range []string{"", "spc_1", "spc_2"} {
				if organization == "" && space != "" {
					continue
				}
				var held []string
				for _, g := range grants {
					if g.Organization != organization || g.Space != "" && g.Space != space {
						continue
					}
					if g.Role != "" {
						held = append(held, roles[g.Role]...)
					} else {
						held = append(held, g.Permission)
					}
				}
				want := m.expand(held)
				if organization != "" {
					delete(want, "keygate:operator")
				}
				got := p.Granted(grants, organization, "")
				if space != "" {
					got = got.Or(p.Granted(grants, organization, space))
				}
				if diff := cmp.Diff(want.sorted(), c.Names(got)); diff != "" {
					t.Fatalf("at %q, %q (-model +real):\n%s", organization, space, diff)
				}
			}
		}
	})
}
