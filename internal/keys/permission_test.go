package keys_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
)

func catalogue(t testing.TB, own ...keys.Permission) *keys.Catalogue {
	t.Helper()
	c, err := keys.NewCatalogue(own)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func granted(c *keys.Catalogue, grants ...string) []string { return c.Names(c.Expand(grants)) }

// shop is a catalogue with one of everything.
func shop() []keys.Permission {
	return []keys.Permission{
		{Name: "orders:read"},
		{Name: "orders:write"},
		{Name: "orders:delete"},
		{Name: "goods:read"},
		{Name: "goods:create"},
		{Name: "goods:update"},
		{Name: "logs:read", Administrative: true},
		{Name: "team:manage", Administrative: true},
		{Name: "orders:all", Implies: []string{"orders:*"}},
		{Name: "desk:work", Implies: []string{"orders:all", "goods:read"}},
	}
}

var ownFive = []string{"keygate:audit", "keygate:keys-read", "keygate:keys-write", "keygate:members", "keygate:usage"}

func TestExpand(t *testing.T) {
	c := catalogue(t, shop()...)
	everything := []string{
		"desk:work", "goods:create", "goods:read", "goods:update", "logs:read", "orders:all", "orders:delete", "orders:read", "orders:write",
		"read:all", "team:manage", "write:all",
	}
	tests := []struct {
		name   string
		grants []string
		want   []string
	}{
		{"nothing", nil, []string{}},
		{"an entry is itself", []string{"orders:read"}, []string{"orders:read"}},
		{"a resource, not its administrative or implying entries", []string{"orders:*"}, []string{"orders:delete", "orders:read", "orders:write"}},
		{"an action, not its administrative entries", []string{"*:read"}, []string{"goods:read", "orders:read"}},
		{"no wildcard but * reaches an administrative entry", []string{"logs:*", "team:*", "*:manage"}, []string{}},
		{"an implying entry is not matched by its action", []string{"*:all", "*:work"}, []string{}},
		{"an administrative entry by name", []string{"logs:read"}, []string{"logs:read"}},
		{"implies is transitive", []string{"desk:work"}, []string{"desk:work", "goods:read", "orders:all", "orders:delete", "orders:read", "orders:write"}},
		{"read:all", []string{"read:all"}, []string{"goods:read", "orders:read", "read:all"}},
		{"write:all: not delete, nothing administrative", []string{"write:all"}, []string{"goods:create", "goods:update", "orders:write", "write:all"}},
		{"* is all but keygate's own and admin", []string{"*"}, everything},
		{"keygate:* is five", []string{"keygate:*"}, ownFive},
		{"an own action is reached by no other wildcard", []string{"*:members", "*:operator", "*:audit"}, []string{}},
		{"admin is * and keygate:*, not operator", []string{"admin"}, slices.Sorted(slices.Values(slices.Concat(everything, ownFive, []string{"admin"})))},
		{"operator is granted by its name only", []string{"keygate:operator"}, []string{"keygate:operator"}},
		{"all together never imply operator", []string{"admin", "*", "keygate:*", "read:all", "write:all"}, slices.Sorted(slices.Values(slices.Concat(everything, ownFive, []string{"admin"})))},
		{"what the catalogue does not know grants nothing", []string{"gone:read", "gone:*", "*:gone", "", "orders", "**", "*:*", "ord*:read", "orders:read:*", "admin:*"}, []string{}},
		{"unknown beside known", []string{"gone:read", "goods:read"}, []string{"goods:read"}},
		{"case counts", []string{"Orders:Read", "ADMIN"}, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, granted(c, tt.grants...)); diff != "" {
				t.Errorf("Expand(%q) (-want +got):\n%s", tt.grants, diff)
			}
		})
	}
}

func TestBuiltinsWithoutPolicy(t *testing.T) {
	c := catalogue(t) // the built-in wildcards match nothing yet
	want := slices.Sorted(slices.Values(slices.Concat(ownFive, []string{"admin", "keygate:operator", "read:all", "write:all"})))
	var got []string
	for _, p := range c.Entries() {
		got = append(got, p.Name)
		if p.Title == "" || p.Group == "" {
			t.Errorf("%s: title %q, group %q: want both", p.Name, p.Title, p.Group)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if err := c.Check("*:read"); err == nil {
		t.Error("a key may hold *:read although it matches nothing")
	}
}

// Grants are stored as written, so a permission that a later policy adds comes
// to those who hold read:all without anyone touching their keys.
func TestWildcardsGainLaterEntries(t *testing.T) {
	stored := []string{"read:all", "goods:*"}
	before := catalogue(t, keys.Permission{Name: "goods:read"})
	after := catalogue(t, keys.Permission{Name: "goods:read"}, keys.Permission{Name: "goods:pack"}, keys.Permission{Name: "news:read"})
	if diff := cmp.Diff([]string{"goods:read", "read:all"}, granted(before, stored...)); diff != "" {
		t.Errorf("before (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"goods:pack", "goods:read", "news:read", "read:all"}, granted(after, stored...)); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
}

func TestReplacedBuiltins(t *testing.T) {
	c := catalogue(t,
		keys.Permission{Name: "goods:read"}, keys.Permission{Name: "logs:read"},
		keys.Permission{Name: "read:all", Title: "Goods", Implies: []string{"goods:read"}},
		keys.Permission{Name: "admin", Administrative: true, Implies: []string{"goods:*"}},
	)
	if diff := cmp.Diff([]string{"goods:read", "read:all"}, granted(c, "read:all")); diff != "" {
		t.Errorf("read:all (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"admin", "goods:read"}, granted(c, "admin")); diff != "" {
		t.Errorf("admin (-want +got):\n%s", diff)
	}
	if slices.Contains(granted(c, "*"), "admin") {
		t.Error("* grants the replaced admin")
	}
	i, _ := c.Index("read:all")
	if got := c.Entries()[i].Title; got != "Goods" {
		t.Errorf("title %q: want the policy's", got)
	}

	// One that no longer implies anything is a plain entry like any other.
	c = catalogue(t, keys.Permission{Name: "read:all"}, keys.Permission{Name: "write:all"})
	if diff := cmp.Diff([]string{"read:all", "write:all"}, granted(c, "*:all")); diff != "" {
		t.Errorf("*:all (-want +got):\n%s", diff)
	}
}

// A wildcard in implies may lead back to where it started: entries that imply
// are matched by "*" alone.
func TestCycleThroughWildcardIsCut(t *testing.T) {
	c := catalogue(t,
		keys.Permission{Name: "a:x", Implies: []string{"*"}},
		keys.Permission{Name: "b:x", Implies: []string{"*"}},
		keys.Permission{Name: "c:x"},
	)
	want := []string{"a:x", "b:x", "c:x", "read:all", "write:all"}
	for _, grant := range []string{"a:x", "b:x", "*"} {
		if diff := cmp.Diff(want, granted(c, grant)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", grant, diff)
		}
	}
}

func TestTitleDefaultsToName(t *testing.T) {
	c := catalogue(t, keys.Permission{Name: "a:x"}, keys.Permission{Name: "b:x", Title: "B"})
	for name, want := range map[string]string{"a:x": "a:x", "b:x": "B"} {
		i, ok := c.Index(name)
		if !ok || c.Entries()[i].Title != want {
			t.Errorf("%s: title %q, known %t: want %q", name, c.Entries()[i].Title, ok, want)
		}
	}
}

func TestNewCatalogueRefuses(t *testing.T) {
	type where struct {
		Name    string
		Implies int
	}
	entry := func(name string, implies ...string) keys.Permission {
		return keys.Permission{Name: name, Implies: implies}
	}
	tests := []struct {
		name    string
		own     []keys.Permission
		at      where
		problem string // must be part of the message
	}{
		{"no colon", []keys.Permission{entry("orders")}, where{"orders", -1}, "must be resource:action"},
		{"empty", []keys.Permission{entry("")}, where{"", -1}, "must be resource:action"},
		{"no resource", []keys.Permission{entry(":read")}, where{":read", -1}, "must be resource:action"},
		{"no action", []keys.Permission{entry("orders:")}, where{"orders:", -1}, "must be resource:action"},
		{"three segments", []keys.Permission{entry("a:b:c")}, where{"a:b:c", -1}, "must be resource:action"},
		{"a wildcard as a name", []keys.Permission{entry("orders:*")}, where{"orders:*", -1}, "must be resource:action"},
		{"white space", []keys.Permission{entry("orders: read")}, where{"orders: read", -1}, "must be resource:action"},
		{"not ASCII", []keys.Permission{entry("orders:lesén")}, where{"orders:lesén", -1}, "must be resource:action"},
		{"too long", []keys.Permission{entry("a:" + strings.Repeat("b", 99))}, where{"a:" + strings.Repeat("b", 99), -1}, "longer than 100"},
		{"twice", []keys.Permission{entry("a:b"), entry("c:d"), entry("a:b")}, where{"a:b", -1}, "defined twice"},
		{"keygate's own", []keys.Permission{entry("keygate:members")}, where{"keygate:members", -1}, "reserved"},
		{"below keygate", []keys.Permission{entry("keygate:more")}, where{"keygate:more", -1}, "reserved"},
		{"implies an unknown entry", []keys.Permission{entry("a:b"), entry("a:c", "a:b", "a:gone")}, where{"a:c", 1}, "not in the catalogue"},
		{"implies a wildcard without a match", []keys.Permission{entry("a:c", "gone:*")}, where{"a:c", 0}, "matches nothing"},
		{"implies a part of a segment", []keys.Permission{entry("ab:c"), entry("x:y", "a*:c")}, where{"x:y", 0}, "whole segment"},
		{"implies *:*", []keys.Permission{entry("x:y", "*:*")}, where{"x:y", 0}, "whole segment"},
		{"implies operator", []keys.Permission{entry("x:y", "keygate:operator")}, where{"x:y", 0}, "cannot be implied"},
		{"admin implies operator", []keys.Permission{entry("admin", "*", "keygate:operator")}, where{"admin", 1}, "cannot be implied"},
		{"implies itself", []keys.Permission{entry("x:y", "x:y")}, where{"x:y", 0}, "in turn"},
		{"a cycle of three", []keys.Permission{entry("a:1", "b:2"), entry("b:2", "c:3"), entry("c:3", "a:1")}, where{"c:3", 0}, "in turn"},
		{"a cycle behind a wildcard and a replaced built-in", []keys.Permission{entry("z:1", "*", "read:all"), entry("read:all", "z:1")}, where{"z:1", 1}, "in turn"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := keys.NewCatalogue(tt.own)
			var wrong *keys.PermissionError
			if !errors.As(err, &wrong) {
				t.Fatalf("error %v: want a PermissionError", err)
			}
			if got := (where{wrong.Name, wrong.Implies}); got != tt.at {
				t.Errorf("error at %+v: want %+v", got, tt.at)
			}
			if !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("error %q: want %q in it", err, tt.problem)
			}
		})
	}
}

// All mistakes of a file are told at once.
func TestNewCatalogueReportsAll(t *testing.T) {
	_, err := keys.NewCatalogue([]keys.Permission{{Name: "x"}, {Name: "a:b", Implies: []string{"gone:*", "keygate:operator"}}, {Name: "a:b"}})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 {
		t.Errorf("error %v: want four", err)
	}
}

func TestCheck(t *testing.T) {
	c := catalogue(t, shop()...)
	for _, grant := range []string{"orders:read", "orders:*", "*:read", "*", "admin", "keygate:*", "keygate:operator", "read:all", "logs:read"} {
		if err := c.Check(grant); err != nil {
			t.Errorf("Check(%q): %v", grant, err)
		}
	}
	for grant, problem := range map[string]string{
		"":                             "not in the catalogue",
		"gone:read":                    "not in the catalogue",
		"orders:Read":                  "not in the catalogue",
		"gone:*":                       "matches nothing",
		"*:gone":                       "matches nothing",
		"team:*":                       "matches nothing", // administrative entries only
		"desk:*":                       "matches nothing", // implying entries only
		"*:members":                    "matches nothing",
		"admin:*":                      "matches nothing",
		"*:*":                          "whole segment",
		"**":                           "whole segment",
		"*:":                           "whole segment",
		":*":                           "whole segment",
		"ord*:read":                    "whole segment",
		"orders:re*":                   "whole segment",
		"orders:*:*":                   "whole segment",
		strings.Repeat("a", 99) + ":*": "101 characters",
	} {
		if err := c.Check(grant); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("Check(%q): %v: want %q", grant, err, problem)
		}
	}
}
