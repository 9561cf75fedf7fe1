package keys

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestActionsAreComplete: whoever filters the audit log chooses from this list,
// so that an action which is written must be in it, and in the documentation.
func TestActionsAreComplete(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{ActionPolicyLoad: true}
	place := map[string]int{"audit": 2, "changeKey": 3} // of the action in the arguments
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || place[method.Sel.Name] == 0 || len(call.Args) <= place[method.Sel.Name] {
				return true
			}
			if action, ok := call.Args[place[method.Sel.Name]].(*ast.BasicLit); ok && action.Kind == token.STRING {
				text, err := strconv.Unquote(action.Value)
				if err != nil {
					t.Fatal(err)
				}
				written[text] = true
			}
			return true
		})
	}
	documented, err := os.ReadFile(filepath.Join("..", "..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range Actions() {
		if !written[action] {
			t.Errorf("%s is listed and never written", action)
		}
		if !strings.Contains(string(documented), "`"+action+"`") {
			t.Errorf("docs/api.md does not have %s", action)
		}
		delete(written, action)
	}
	for action := range written {
		t.Errorf("%s is written and not listed", action)
	}
	if !slices.IsSorted(Actions()) {
		t.Error("the list is not sorted")
	}
}
