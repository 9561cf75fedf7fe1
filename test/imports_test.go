package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const module = "keygate"

// mayImport says which packages of ours each of our packages may import outside
// its tests. A pattern that ends in "/*" stands for all packages below; an
// exact name comes first. A package that no line covers is an error, so that
// whoever adds one decides where it belongs.
var mayImport = map[string][]string{
	".":            {"internal/cli"},
	"internal/cli": {"internal/server", "internal/admin", "config", "internal/keys", "proxy/route"},
	"internal/server": {
		"config", "proxy", "proxy/route", "auth", "ratelimit", "ratelimit/*", "internal/admin", "internal/keys",
		"internal/store/sqlite", "internal/store/redis", "internal/usage", "internal/problem", "internal/pace",
	},
	"proxy":             {"proxy/route", "proxy/upstream", "auth", "ratelimit", "internal/usage", "internal/keys", "internal/problem", "internal/pace"},
	"proxy/route":       {},
	"proxy/upstream":    {"proxy/route", "internal/pace"},
	"auth":              {"internal/keys", "proxy/route", "ratelimit"},
	"config":            {"internal/spelling", "internal/keys", "ratelimit", "proxy/route", "proxy/upstream"},
	"ratelimit":         {},
	"ratelimit/*":       {"ratelimit"},
	"internal/admin":    {"auth", "internal/admin/ui", "internal/keys", "internal/usage", "internal/problem"},
	"internal/admin/ui": {},
	"internal/store/*":  {"internal/keys", "internal/usage", "ratelimit"},
	"internal/usage":    {"internal/keys"},
	"internal/keys":     {"internal/spelling", "ratelimit"},
	"internal/spelling": {},
	"internal/problem":  {},
	"internal/pace":     {},
	// Of which tests are made: no other package may import it.
	"internal/clocktest": {},
	// Tests and benchmarks stand outside and look at everything.
	"test":   {"*"},
	"test/*": {"*"},
}

// mayName narrows an import to some of its names: the domain borrows a value
// and must not come to depend on how limits are enforced.
var mayName = map[[2]string][]string{
	{"internal/keys", "ratelimit"}: {"Limit", "MinWindow", "MaxWindow", "MaxQuota", "MaxName", "ParseZone"}, // the value, and its bounds
}

// testsOnly must not end up in the binary. Packages for tests are those below
// test/ and those whose own name ends in "test", such as storetest.
var testsOnly = []string{
	"testing", "net/http/httptest", "github.com/alicebob/miniredis/v2", "pgregory.net/rapid",
	"go.uber.org/goleak", "github.com/google/go-cmp/cmp", "github.com/anishathalye/porcupine",
	"github.com/santhosh-tekuri/jsonschema/v6", "google.golang.org/grpc",
}

// use is what one package imports: import path to the names it uses of it. Only
// the names used of our own packages are collected.
type use map[string][]string

func TestImports(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	packages, err := parse(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"internal/keys", "proxy/route", "ratelimit"} {
		if packages[want] == nil {
			t.Errorf("%s was not found: the test does not see the repository", want)
		}
	}
	for _, v := range violations(packages) {
		t.Error(v)
	}
}

// parse reads the imports of every package of the module, in files for all
// platforms and build tags, but not of tests.
func parse(root fs.FS) (map[string]use, error) {
	packages := make(map[string]use)
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "node_modules" || base == "vendor") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if packages[dir] == nil {
			packages[dir] = make(use)
		}
		packages[dir].add(file)
		return nil
	})
	return packages, err
}

func (u use) add(file *ast.File) {
	local := make(map[string]string) // name in the file to import path
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the parser accepts quoted strings only
		}
		u[imported] = append(u[imported], "")
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if ours(imported) {
			local[name] = imported
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && local[x.Name] != "" {
				u[local[x.Name]] = append(u[local[x.Name]], s.Sel.Name)
			}
		}
		return true
	})
}

func ours(imported string) bool {
	return imported == module || strings.HasPrefix(imported, module+"/")
}

func violations(packages map[string]use) []string {
	var out []string
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		allowed, listed := lookUp(dir)
		if !listed {
			out = append(out, dir+": no rule says what it may import; decide where it belongs and add it to mayImport and to the docs")
			continue
		}
		forTests := strings.HasSuffix(path.Base(dir), "test") || strings.HasPrefix(dir, "test/")
		for _, imported := range slices.Sorted(maps.Keys(packages[dir])) {
			if slices.Contains(testsOnly, imported) && !forTests {
				out = append(out, dir+": imports "+imported+", which is for tests only")
			}
			if !ours(imported) {
				continue
			}
			target := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
			if !slices.ContainsFunc(allowed, func(pattern string) bool { return covers(pattern, target) }) {
				out = append(out, dir+": must not import "+target)
				continue
			}
			names, narrowed := mayName[[2]string{dir, target}]
			used := slices.Compact(slices.Sorted(slices.Values(packages[dir][imported])))
			for _, name := range used {
				if narrowed && name != "" && !slices.Contains(names, name) {
					out = append(out, dir+": must not use "+target+"."+name)
				}
			}
		}
	}
	return out
}

func lookUp(dir string) (allowed []string, listed bool) {
	if allowed, listed = mayImport[dir]; listed {
		return allowed, true
	}
	for pattern, allowed := range mayImport {
		if pattern != "." && covers(pattern, dir) {
			return allowed, true
		}
	}
	return nil, false
}

func covers(pattern, dir string) bool {
	if pattern == "*" || pattern == dir {
		return true
	}
	below, found := strings.CutSuffix(pattern, "*")
	return found && strings.HasPrefix(dir, below)
}

// The rules are worth what they refuse.
func TestImportRulesRefuse(t *testing.T) {
	imports := func(paths ...string) use {
		u := make(use)
		for _, p := range paths {
			u[p] = []string{""}
		}
		return u
	}
	for _, tt := range []struct {
		name     string
		packages map[string]use
		want     []string
	}{
		{"what is allowed", map[string]use{
			".": imports("keygate/internal/cli", "os"), "internal/store/sqlite": imports("keygate/internal/keys"),
			"internal/store/storetest": imports("testing", "keygate/internal/keys"), "ratelimit/memory": imports("keygate/ratelimit"),
			"internal/server": imports("keygate/ratelimit/memory", "keygate/config"), "test/bench": imports("keygate/proxy", "net/http/httptest"),
			"internal/admin": imports("keygate/internal/admin/ui"),
		}, nil},
		{"main reaches past the commands", map[string]use{".": imports("keygate/config")}, []string{".: must not import config"}},
		{"config read below the wiring", map[string]use{"proxy": imports("keygate/config")}, []string{"proxy: must not import config"}},
		{"the commands reach past the API", map[string]use{"internal/cli": imports("keygate/internal/store/sqlite")}, []string{"internal/cli: must not import internal/store/sqlite"}},
		{"the domain knows HTTP answers", map[string]use{"internal/keys": imports("keygate/internal/problem")}, []string{"internal/keys: must not import internal/problem"}},
		{"a leaf that is none", map[string]use{"proxy/route": imports("keygate/internal/keys")}, []string{"proxy/route: must not import internal/keys"}},
		{"one ledger knows another", map[string]use{"ratelimit/redis": imports("keygate/ratelimit/memory")}, []string{"ratelimit/redis: must not import ratelimit/memory"}},
		{"a limiter knows its ledgers", map[string]use{"ratelimit": imports("keygate/ratelimit/memory")}, []string{"ratelimit: must not import ratelimit/memory"}},
		{"a contract suite in the binary", map[string]use{"internal/server": imports("keygate/internal/store/storetest")}, []string{"internal/server: must not import internal/store/storetest"}},
		{"a test's tool in the binary", map[string]use{"auth": imports("net/http/httptest")}, []string{"auth: imports net/http/httptest, which is for tests only"}},
		{"code that imports tests", map[string]use{"internal/server": imports("keygate/test/bench")}, []string{"internal/server: must not import test/bench"}},
		{"a new package", map[string]use{"internal/utils": imports()}, []string{"internal/utils: no rule says what it may import; decide where it belongs and add it to mayImport and to the docs"}},
		{"a name outside the narrow import", map[string]use{"internal/keys": {"keygate/ratelimit": {"", "Limit", "Ledger"}}}, []string{"internal/keys: must not use ratelimit.Ledger"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, violations(tt.packages)); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParse(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	got, err := parse(fstest.MapFS{
		"main.go":              file("package main\nimport \"keygate/internal/cli\"\nfunc main() { cli.Run() }"),
		"a/a.go":               file("package a"),
		"a/windows.go":         file("//go:build windows\n\npackage a\nimport l \"keygate/ratelimit\"\nvar _ = l.Quota"),
		"a/a_test.go":          file("package a\nimport \"testing\""),
		"a/testdata/x.go":      file("package x\nimport \"keygate/b\""),
		"a/node_modules/y.go":  file("package y"),
		".hidden/z.go":         file("package z"),
		"tools/go.mod":         file("module other"),
		"tools/t.go":           file("package t"),
		"docs/only/words.text": file("no package"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]use{
		".": {"keygate/internal/cli": {"", "Run"}},
		"a": {"keygate/ratelimit": {"", "Quota"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
}
