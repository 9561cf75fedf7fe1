package keys_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"keygate/internal/keys"
)

func TestStatus(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	past, later := now.Add(-time.Hour), now.Add(time.Hour)
	for _, tt := range []struct {
		name string
		key  keys.Key
		want keys.Status
	}{
		{"nothing set", keys.Key{}, keys.Active},
		{"expires later", keys.Key{ExpiresAt: later}, keys.Active},
		{"paused", keys.Key{PausedAt: past}, keys.Paused},
		{"expired", keys.Key{ExpiresAt: past}, keys.Expired},
		{"revoked", keys.Key{RevokedAt: past}, keys.Revoked},
		{"paused, expires later", keys.Key{PausedAt: past, ExpiresAt: later}, keys.Paused},
		{"expired before paused", keys.Key{PausedAt: past, ExpiresAt: past}, keys.Expired},
		{"revoked before paused", keys.Key{PausedAt: past, RevokedAt: past}, keys.Revoked},
		{"revoked before expired", keys.Key{ExpiresAt: past, RevokedAt: past}, keys.Revoked},
		{"revoked before all", keys.Key{ExpiresAt: past, PausedAt: past, RevokedAt: past}, keys.Revoked},
		// Another replica's clock may be ahead: a pause or revocation holds at once.
		{"paused by a clock ahead", keys.Key{PausedAt: later}, keys.Paused},
		{"revoked by a clock ahead", keys.Key{RevokedAt: later}, keys.Revoked},
	} {
		if got := tt.key.Status(now); got != tt.want {
			t.Errorf("%s: %s: want %s", tt.name, got, tt.want)
		}
	}
}

// A key stops at the very instant of its expiry, in whichever zone it is written.
func TestStatusAtExpiry(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 5*3600+1800))
	key := keys.Key{ExpiresAt: at}
	for offset, want := range map[time.Duration]keys.Status{-time.Nanosecond: keys.Active, 0: keys.Expired, time.Nanosecond: keys.Expired} {
		if got := key.Status(at.UTC().Add(offset)); got != want {
			t.Errorf("%v from expiry: %s: want %s", offset, got, want)
		}
	}
}

type record interface{ Validate() error }

// wrong lists the fields that a record's Validate names.
func wrong(t *testing.T, r record) []string {
	t.Helper()
	err := r.Validate()
	if err == nil {
		return nil
	}
	var invalid *keys.InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("error %v: want an InvalidError", err)
	}
	var fields []string
	for _, f := range invalid.Fields {
		fields = append(fields, f.Field)
		if f.Problem == "" || !strings.Contains(err.Error(), f.Field+": "+f.Problem) {
			t.Errorf("%s: problem %q is not in the message %q", f.Field, f.Problem, err)
		}
		if len(f.Value) > 100 {
			t.Errorf("%s: repeats a value of %d bytes", f.Field, len(f.Value))
		}
	}
	return fields
}

func TestValidateNames(t *testing.T) {
	key := func(name string) record { return &keys.Key{Name: name} }
	records := map[string]func(name string) record{
		"key":          key,
		"account":      func(name string) record { return keys.Account{Name: name} },
		"organization": func(name string) record { return keys.Organization{Slug: "acme", Name: name} },
		"space":        func(name string) record { return keys.Space{Slug: "lab", Name: name} },
	}
	for kind, with := range records {
		for _, name := range []string{"a", "Nightly import (EU) #2", "日本語", strings.Repeat("é", 100), "👩‍🔬", "<b>"} {
			if got := wrong(t, with(name)); got != nil {
				t.Errorf("%s: name %q: wrong fields %q", kind, name, got)
			}
		}
		for _, name := range []string{
			"", " ", "\t\n", "\u00a0", strings.Repeat("a", 101), strings.Repeat("é", 101),
			"a\nb", "a\tb", "a\rb", "a\x00b", "a\x1b[31mb", "a\x7fb", "a\u0085b", "a\u2028b", "a\u2029b", "a\xffb", "\xed\xa0\x80",
		} {
			if got := wrong(t, with(name)); !slices.Equal(got, []string{"name"}) {
				t.Errorf("%s: name %q: wrong fields %q: want the name, once", kind, name, got)
			}
		}
	}
}

func TestValidateDescription(t *testing.T) {
	for description, ok := range map[string]bool{
		"":                                  true,
		"two\nlines\tand a tab":             true,
		strings.Repeat("日", 500):            true,
		strings.Repeat("日", 501):            false,
		"carriage\rreturn":                  false,
		"\x1b]0;title\x07":                  false,
		"paragraph\u2029separator":          false,
		"\xc3":                              false,
		strings.Repeat("a", 499) + "\u0301": true, // characters are code points
	} {
		got := wrong(t, &keys.Key{Name: "k", Description: description})
		if ok != (got == nil) || !ok && !slices.Equal(got, []string{"description"}) {
			t.Errorf("description %.30q: wrong fields %q; want valid: %t", description, got, ok)
		}
	}
}

func TestValidateSlugs(t *testing.T) {
	for slug, ok := range map[string]bool{
		"a": true, "0": true, "acme": true, "acme-2": true, "a--b": true, strings.Repeat("a", 63): true,
		"": false, strings.Repeat("a", 64): false, "-a": false, "a-": false, "-": false, "Acme": false, "a_b": false,
		"a.b": false, "a b": false, "a/b": false, "é": false, "a\n": false,
		"org_0190": false, // an id is never a slug
	} {
		for kind, r := range map[string]record{
			"organization": keys.Organization{Slug: slug, Name: "n"},
			"space":        keys.Space{Slug: slug, Name: "n"},
		} {
			got := wrong(t, r)
			if ok != (got == nil) || !ok && !slices.Equal(got, []string{"slug"}) {
				t.Errorf("%s: slug %q: wrong fields %q; want valid: %t", kind, slug, got, ok)
			}
		}
	}
}

// Every wrong field is told at once, in the order of the input.
func TestValidateKeyReportsAll(t *testing.T) {
	k := keys.Key{
		Name:         " ",
		Description:  strings.Repeat("x", 501),
		Permissions:  make([]string, 201),
		AllowedCIDRs: make([]netip.Prefix, 101),
	}
	want := []string{"name", "description", "permissions", "allowed_cidrs"}
	if diff := cmp.Diff(want, wrong(t, &k)); diff != "" {
		t.Errorf("wrong fields (-want +got):\n%s", diff)
	}
	k = keys.Key{Name: "k", Permissions: make([]string, 200), AllowedCIDRs: make([]netip.Prefix, 100)}
	if got := wrong(t, &k); got != nil {
		t.Errorf("at the bounds: wrong fields %q", got)
	}
	if got := wrong(t, keys.Organization{Slug: "A", Name: "\x00"}); !slices.Equal(got, []string{"slug", "name"}) {
		t.Errorf("organization: wrong fields %q: want slug, name", got)
	}
}

// A value is repeated to whoever sent it unless it could break the terminal or
// page that shows it.
func TestValidateRepeatsValues(t *testing.T) {
	for name, want := range map[string]string{"\t": "", "a\x1bb": "", "a\xffb": "", strings.Repeat("a", 101): ""} {
		var invalid *keys.InvalidError
		if err := (&keys.Key{Name: name}).Validate(); !errors.As(err, &invalid) {
			t.Fatalf("name %q: %v", name, err)
		}
		if got := invalid.Fields[0].Value; got != want {
			t.Errorf("name %q is repeated as %q: want %q", name, got, want)
		}
	}
	for slug, want := range map[string]string{"My Lab": "My Lab", "Größe": "Größe", "a\nlevel=info": "", "\u202eba": "", "\xff": "", "\u009b0m": ""} {
		var invalid *keys.InvalidError
		if err := (keys.Space{Slug: slug, Name: "n"}).Validate(); !errors.As(err, &invalid) || invalid.Fields[0].Value != want {
			t.Errorf("slug %q: %v: want %q repeated", slug, err, want)
		}
	}
}
