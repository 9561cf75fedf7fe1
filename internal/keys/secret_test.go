package keys_test

import (
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"keygate/internal/keys"
)

const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// withChecksum appends what the wire contract says must follow body.
func withChecksum(body string) string {
	sum := ""
	for n := crc32.ChecksumIEEE([]byte(body)); n > 0; n /= 62 {
		sum = string(digits[n%62]) + sum
	}
	return body + strings.Repeat("0", 6-len(sum)) + sum
}

func format(t testing.TB, prefix string) keys.Format {
	t.Helper()
	f, err := keys.NewFormat(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNewFormat(t *testing.T) {
	for _, prefix := range []string{"kg_live", "k", "0", "Acme2", "a_b_c_9", strings.Repeat("x", 32)} {
		if got := format(t, prefix).Prefix(); got != prefix {
			t.Errorf("Prefix() = %q: want %q", got, prefix)
		}
	}
	for _, prefix := range []string{"", "_", "_a", "a_", "a__b", "a-b", "a b", "a.b", "kg_lïve", "a\n", strings.Repeat("x", 33)} {
		if _, err := keys.NewFormat(prefix); err == nil {
			t.Errorf("prefix %q is allowed", prefix)
		}
	}
}

// The checksums were computed by other implementations of CRC-32. Those with
// zeros in front are of keys searched for: a small checksum is padded, or about
// one key in five would be refused.
func TestValidKnownKeys(t *testing.T) {
	for prefix, known := range map[string][]string{
		"kg_live": {
			"kg_live_abcdefghijklmnopqrstuvwxyz01230oR0Hb",
			"kg_live_ZYXWVUTSRQPONMLKJIHGFEDCBA98764CVL1p",
			"kg_live_0000000000000000000000000001X1" + "000eJP", // CRC 154963
			"kg_live_000000000000000000000000000PUj" + "0000hB", // CRC 2677
			"kg_live_000000000000000000000000087umy" + "00000Z", // CRC 35
			"kg_live_0000000000000000000000001SQCqc" + "000000", // CRC 0
		},
		"acme":  {"acme_abcdefghijklmnopqrstuvwxyz01233bRmMx", "acme_ZYXWVUTSRQPONMLKJIHGFEDCBA98760FeMef"},
		"a_b_9": {"a_b_9_abcdefghijklmnopqrstuvwxyz01233kHE6W", "a_b_9_ZYXWVUTSRQPONMLKJIHGFEDCBA987606LYvq"},
	} {
		f := format(t, prefix)
		for _, key := range known {
			if !f.Valid(key) || !f.Ours(key) {
				t.Errorf("%s: valid %t, ours %t: want both", key, f.Valid(key), f.Ours(key))
			}
			if unpadded := key[:len(key)-6] + strings.TrimLeft(key[len(key)-6:], "0"); unpadded != key && f.Valid(unpadded) {
				t.Errorf("%s is valid without its padding", unpadded)
			}
		}
	}
}

func TestGenerate(t *testing.T) {
	for _, prefix := range []string{"kg_live", "k", strings.Repeat("x", 32)} {
		f := format(t, prefix)
		seen := make(map[string]bool)
		used := make(map[rune]bool)
		for range 2000 {
			key := f.Generate()
			body, found := strings.CutPrefix(key, prefix+"_")
			if !found || len(body) != 36 || strings.Trim(body, digits) != "" {
				t.Fatalf("%q: want %s_ and 36 letters and digits", key, prefix)
			}
			if key != withChecksum(key[:len(key)-6]) {
				t.Fatalf("%s: wrong checksum", key)
			}
			if !f.Valid(key) || !f.Ours(key) {
				t.Fatalf("%s: its own format refuses it", key)
			}
			if seen[key] {
				t.Fatalf("%s was made twice", key)
			}
			seen[key] = true
			for _, c := range body[:30] {
				used[c] = true
			}
		}
		if len(used) != len(digits) { // 60,000 draws: missing one has probability below 10^-400
			t.Errorf("%s: %d of %d characters used", prefix, len(used), len(digits))
		}
	}
}

// A mistyped key is refused without a lookup: CRC-32 finds every error within
// 32 consecutive bits, so every single character.
func TestValidRefusesEverySingleChange(t *testing.T) {
	for _, prefix := range []string{"kg_live", "a"} {
		f := format(t, prefix)
		key := f.Generate()
		for i := range len(key) {
			for c := range 256 {
				changed := []byte(key)
				changed[i] = byte(c)
				if s := string(changed); s != key && f.Valid(s) {
					t.Errorf("%q is valid, and so is %q", key, s)
				}
			}
			if shorter := key[:i] + key[i+1:]; f.Valid(shorter) {
				t.Errorf("%q is valid, and so is %q", key, shorter)
			}
			if longer := key[:i] + "0" + key[i:]; f.Valid(longer) {
				t.Errorf("%q is valid, and so is %q", key, longer)
			}
		}
	}
}

func TestValidRefuses(t *testing.T) {
	f := format(t, "kg_live")
	key := f.Generate()
	for name, s := range map[string]string{
		"empty":                               "",
		"the prefix":                          "kg_live",
		"the prefix and its underscore":       "kg_live_",
		"another prefix":                      withChecksum("kg_test_" + strings.Repeat("a", 30)),
		"a longer prefix":                     withChecksum("kg_live_eu_" + strings.Repeat("a", 30)),
		"a longer prefix of the right length": withChecksum("kg_live_eu_" + strings.Repeat("a", 27)),
		"a hyphen with a right checksum":      withChecksum("kg_live_" + strings.Repeat("a", 29) + "-"),
		"not ASCII with a right checksum":     withChecksum("kg_live_" + strings.Repeat("a", 28) + "é"),
		"NUL with a right checksum":           withChecksum("kg_live_" + strings.Repeat("a", 29) + "\x00"),
		"space before":                        " " + key,
		"line feed after":                     key + "\n",
		"upper case":                          strings.ToUpper(key),
		"lower-case prefix of another case":   "KG_live" + key[7:],
		"twice":                               key + key,
	} {
		if f.Valid(s) {
			t.Errorf("%s: %q is valid", name, s)
		}
	}
}

func TestOurs(t *testing.T) {
	f := format(t, "kg_live")
	for s, want := range map[string]bool{
		"kg_live_": true, "kg_live_whatever": true, "kg_live": false, "kg_liv": false, "": false,
		"kg_livex_": false, "KG_live_x": false, "sk_live_x": false, " kg_live_x": false,
	} {
		if got := f.Ours(s); got != want {
			t.Errorf("Ours(%q) = %t: want %t", s, got, want)
		}
	}
}

func FuzzFormatValid(f *testing.F) {
	f.Add("kg_live", "kg_live_0000000000000000000000001SQCqc000000")
	f.Add("a_b_9", "a_b_9_abcdefghijklmnopqrstuvwxyz01233kHE6W")
	f.Add("kg", "kg_live_"+strings.Repeat("a", 30))
	f.Add("x", "\xff")
	f.Fuzz(func(t *testing.T, prefix, s string) {
		form, err := keys.NewFormat(prefix)
		if err != nil {
			return
		}
		// The text as it is, and with a checksum that makes it valid if its form is.
		for _, key := range []string{s, withChecksum(s), withChecksum(prefix + "_" + s)} {
			body, ours := strings.CutPrefix(key, prefix+"_")
			want := ours && len(body) == 36 && strings.Trim(body, digits) == "" && withChecksum(key[:len(key)-6]) == key
			if got := form.Valid(key); got != want {
				t.Errorf("prefix %q: Valid(%q) = %t: want %t", prefix, key, got, want)
			}
			if form.Ours(key) != ours {
				t.Errorf("prefix %q: Ours(%q) = %t: want %t", prefix, key, !ours, ours)
			}
		}
	})
}

func TestHashSecret(t *testing.T) {
	for _, secret := range []string{"", "abc", "kg_live_0000000000000000000000001SQCqc000000", strings.Repeat("x", 127), strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("x", 10_000)} {
		if got, want := keys.HashSecret(secret), keys.Hash(sha256.Sum256([]byte(secret))); got != want {
			t.Errorf("HashSecret(%.20q) = %x: want %x", secret, got, want)
		}
	}
	// FIPS 180-4's own example.
	got := keys.HashSecret("abc")
	if hex.EncodeToString(got[:]) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("HashSecret(abc) = %x", got)
	}
}

// What is kept of a secret must not give it away.
func TestNewSecret(t *testing.T) {
	f := format(t, "kg_live")
	key := f.Generate()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := keys.Secret{Hash: keys.HashSecret(key), Prefix: "kg_live", LastFour: key[40:], CreatedAt: now}
	if got := keys.NewSecret(f, key, now); got != want {
		t.Errorf("NewSecret = %+v: want %+v", got, want)
	}
}

func BenchmarkHashSecret(b *testing.B) {
	key := format(b, keys.DefaultPrefix).Generate()
	b.ReportAllocs()
	for b.Loop() {
		keys.HashSecret(key)
	}
}

func BenchmarkFormatValid(b *testing.B) {
	f := format(b, keys.DefaultPrefix)
	key := f.Generate()
	b.ReportAllocs()
	for b.Loop() {
		if !f.Valid(key) {
			b.Fatal("refused")
		}
	}
}

// Every request pays for these two, also those with a made-up key.
func TestCredentialPathAllocatesNothing(t *testing.T) {
	f := format(t, keys.DefaultPrefix)
	key := f.Generate()
	var valid bool
	var hash keys.Hash
	if n := testing.AllocsPerRun(100, func() { valid, hash = f.Valid(key), keys.HashSecret(key) }); n != 0 || !valid {
		t.Errorf("%v allocations, valid %t, hash %x: want none", n, valid, hash)
	}
}
