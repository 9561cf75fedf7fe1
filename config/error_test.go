package config

import "testing"

func TestDidYouMean(t *testing.T) {
	known := []string{"targets", "balance", "tls", "timeouts", "max_keys"}
	for name, want := range map[string]string{
		"target":   `; did you mean "targets"?`,
		"tragets":  `; did you mean "targets"?`,
		"maxkeys":  `; did you mean "max_keys"?`,
		"max-keys": `; did you mean "max_keys"?`,
		"tsl":      `; did you mean "tls"?`,
		"Balance":  `; did you mean "balance"?`,
		"weights":  "",
		"x":        "",
		"":         "",
	} {
		if got := didYouMean(name, known); got != want {
			t.Errorf("didYouMean(%q) = %q, not %q", name, got, want)
		}
	}
}

func TestProblemString(t *testing.T) {
	for _, c := range []struct {
		p    Problem
		want string
	}{
		{Problem{"p.yaml", 3, 5, "routes[2].permission", "is missing"}, "p.yaml:3:5: routes[2].permission: is missing"},
		{Problem{"p.yaml", 1, 1, "", "the policy is empty"}, "p.yaml:1:1: the policy is empty"},
		{Problem{"p.yaml", 0, 0, "", "gone"}, "p.yaml: gone"},
		{Problem{"", 0, 0, "PORT", "is out of bounds"}, "PORT: is out of bounds"},
	} {
		if got := c.p.String(); got != c.want {
			t.Errorf("%q, not %q", got, c.want)
		}
	}
}
