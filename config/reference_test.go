package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The part of the page between the marks is generated:
// go test ./config -run TestDocumentation -update
func TestDocumentation(t *testing.T) {
	const file, begin, end = "../docs/configuration.md", "<!-- begin generated -->\n", "<!-- end generated -->\n"
	page := string(readFile(t, file))
	before, rest, found := strings.Cut(page, begin)
	generated, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatal("the marks are missing")
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+Reference()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(generated, Reference()); diff != "" {
		t.Errorf("%s is not in step: run go test ./config -run TestDocumentation -update\n%s", file, diff)
	}
}

// Every policy of the page is one that works.
func TestDocumentedPolicies(t *testing.T) {
	page := string(readFile(t, "../docs/configuration.md"))
	parts := strings.Split(page, "```yaml\n")
	if len(parts) < 2 {
		t.Fatal("no policy in the page")
	}
	for _, part := range parts[1:] {
		policy, _, _ := strings.Cut(part, "```")
		if _, err := ParsePolicy("docs/configuration.md", []byte(policy)); err != nil {
			t.Errorf("%s\n%s", err, policy)
		}
	}
}
