package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var metricName = regexp.MustCompile(`^keygate_[a-z0-9_]+$`)

// metricsInSource finds the names in the program's source: metrics that have no series
// yet, and those of a shared store, show nowhere else.
func metricsInSource(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || path == filepath.Join("..", "test") || path == filepath.Join("..", "tools")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil && metricName.MatchString(text) {
					found[text] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var documentedMetric = regexp.MustCompile("`(keygate_[a-z0-9_]+)(?:\\{([a-z,]+)\\})?`")

// metricsInDocs reads the table of docs/operations.md: names and their labels.
func metricsInDocs(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Metrics\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := make(map[string][]string)
	for row := range strings.Lines(section) {
		cells := strings.Split(row, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range documentedMetric.FindAllStringSubmatch(cells[1], -1) {
			if _, twice := documented[m[1]]; twice {
				t.Errorf("%s is in the table twice", m[1])
			}
			documented[m[1]] = slices.DeleteFunc(slices.Sorted(strings.SplitSeq(m[2], ",")), func(s string) bool { return s == "" })
		}
	}
	return documented
}

var (
	sample = regexp.MustCompile(`^(keygate_[a-z0-9_]+?)(?:_bucket|_sum|_count)?(?:\{(.*)\})? \S+$`)
	label  = regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
)

// An operator looks for a metric in the table of the docs: loads of the policy, and what
// the key cache counts, were not in it. All that there are are, with their labels, and
// nothing else is.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	documented, inSource := metricsInDocs(t), metricsInSource(t)
	if len(inSource) < 50 {
		t.Errorf("%d metrics were found in the source: the test does not see it", len(inSource))
	}
	for name := range inSource {
		if _, ok := documented[name]; !ok {
			t.Errorf("%s is not in the table of docs/operations.md", name)
		}
	}
	for name := range documented {
		if !inSource[name] {
			t.Errorf("docs/operations.md has %s, which there is not", name)
		}
	}

	api := newUpstream(t, nil)
	g := start(t, settings{"KEYGATE_UPSTREAM": api.URL})
	g.wants(http.StatusOK, "/x", g.newKey("client").Secret)
	seen := make(map[string][]string)
	for line := range strings.Lines(string(g.do(http.MethodGet, g.management+"/metrics", "", "").body)) {
		m := sample.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		var labels []string
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" { // of histograms
				labels = append(labels, l[1])
			}
		}
		seen[m[1]] = labels
	}
	if len(seen) < 40 {
		t.Errorf("the gateway shows %v", slices.Collect(maps.Keys(seen)))
	}
	for name, labels := range seen {
		if slices.Sort(labels); !slices.Equal(labels, documented[name]) {
			t.Errorf("%s has the labels %v; documented are %v", name, labels, documented[name])
		}
	}
}
