package spelling

import "testing"

func TestClosest(t *testing.T) {
	known := []string{"orders:read", "orders:write", "tls", "timeouts"}
	for name, want := range map[string]string{
		"order:read": "orders:read", "orders:raed": "orders:read", "Orders:write": "orders:write", "tsl": "tls", "timeouts": "timeouts",
		"invoices": "", "x": "", "": "",
	} {
		if got := Closest(name, known); got != want {
			t.Errorf("Closest(%q) = %q, not %q", name, got, want)
		}
	}
	if got := Closest("ac", []string{"bc", "ab"}); got != "" {
		t.Errorf("of two letters one is wrong: %q is no suggestion", got)
	}
	if got := Closest("abd", []string{"abz", "abc"}); got != "abc" {
		t.Errorf("of two that are equally near the first by name, not %q", got)
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"abc", "xyz", 3}, {"ab", "abcdef", 4},
	} {
		if got := distance(c.a, c.b, 10); got != c.want {
			t.Errorf("distance(%q, %q) = %d, not %d", c.a, c.b, got, c.want)
		}
	}
	if got := distance("ab", "abcdefgh", 3); got <= 3 {
		t.Errorf("far apart, yet %d", got)
	}
}
