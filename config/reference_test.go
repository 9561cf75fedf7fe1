package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The parts of the page between the marks are generated:
// go test ./config -run TestDocumentation -update
func TestDocumentation(t *testing.T) {
	inStep(t, "", Reference())
	inStep(t, " policy", PolicyReference())
}

// inStep compares a generated part of the page with what it should be, or
// rewrites it.
func inStep(t *testing.T, part, want string) {
	t.Helper()
	const file = "../docs/configuration.md"
	begin, end := "<!-- begin generated"+part+" -->\n", "<!-- end generated"+part+" -->\n"
	page := string(readFile(t, file))
	before, rest, found := strings.Cut(page, begin)
	generated, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("the marks of %q are missing", part)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(generated, want); diff != "" {
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
