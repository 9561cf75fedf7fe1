package admin

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

var specFile = filepath.Join("..", "..", "docs", "openapi.json")

// The committed description is the one that is served.
func TestSpecFileIsInStep(t *testing.T) {
	t.Parallel()
	in := start(t)
	r := in.as("", "GET", SpecPath, nil)
	if r.status != http.StatusOK || r.header.Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("%d %q", r.status, r.header.Get("Content-Type"))
	}
	if *update {
		if err := os.WriteFile(specFile, r.body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(specFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.body, want) {
		t.Error("docs/openapi.json differs from what is served: run go test ./internal/admin -run Spec -update")
	}
}

type specMedia struct {
	Schema  json.RawMessage `json:"schema"`
	Example json.RawMessage `json:"example"`
}

type specOperation struct {
	OperationID string `json:"operationId"`
	Summary     string `json:"summary"`
	RequestBody struct {
		Content map[string]specMedia `json:"content"`
	} `json:"requestBody"`
	Responses map[string]specResponse `json:"responses"`
}

type specResponse struct {
	Ref         string                     `json:"$ref"`
	Description string                     `json:"description"`
	Headers     map[string]json.RawMessage `json:"headers"`
	Content     map[string]specMedia       `json:"content"`
}

func TestSpecIsComplete(t *testing.T) {
	t.Parallel()
	in := start(t)
	body := in.as("", "GET", SpecPath, nil).body
	var spec struct {
		OpenAPI    string                              `json:"openapi"`
		Paths      map[string]map[string]specOperation `json:"paths"`
		Components struct {
			Schemas   map[string]json.RawMessage `json:"schemas"`
			Responses map[string]specResponse    `json:"responses"`
		} `json:"components"`
	}
	if err := json.Unmarshal(body, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.OpenAPI != "3.1.0" {
		t.Errorf("openapi %q", spec.OpenAPI)
	}
	for _, name := range []string{"ErrorModel", "ErrorDetail"} {
		if _, ok := spec.Components.Schemas[name]; ok || bytes.Contains(body, []byte("/"+name+`"`)) {
			t.Errorf("the description mentions %s, which no answer has", name)
		}
	}
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	operations := 0
	for path, methods := range spec.Paths {
		for method, op := range methods {
			operations++
			at := strings.ToUpper(method) + " " + path
			if op.Summary == "" || op.OperationID == "" {
				t.Errorf("%s has no summary or id", at)
			}
			if !strings.Contains(string(guide), "`"+at+"`") {
				t.Errorf("docs/api.md does not list %s", at)
			}
			for media, m := range op.RequestBody.Content {
				if media != "application/json" || m.Example == nil || m.Schema == nil {
					t.Errorf("%s: the body is %s with example %s and schema %s", at, media, m.Example, m.Schema)
				}
			}
			errors := 0
			for status, resp := range op.Responses {
				if name, ok := strings.CutPrefix(resp.Ref, "#/components/responses/"); ok {
					resp = spec.Components.Responses[name]
				}
				if resp.Description == "" || resp.Headers["X-Request-Id"] == nil {
					t.Errorf("%s: %s has no description or no X-Request-Id", at, status)
				}
				for media, m := range resp.Content {
					switch {
					case m.Example == nil, status < "300" && media != "application/json" && media != "application/jsonl":
						t.Errorf("%s: %s is %s and has example %s", at, status, media, m.Example)
					case status >= "300":
						errors++
						if media != "application/problem+json" || !strings.Contains(string(m.Schema), "/Problem") {
							t.Errorf("%s: %s is %s %s", at, status, media, m.Schema)
						}
					}
				}
			}
			if errors < 5 {
				t.Errorf("%s documents %d errors", at, errors)
			}
		}
	}
	if operations != 37 {
		t.Errorf("%d operations", operations)
	}
}

// An example that its own API refuses helps nobody.
func TestExamplesAreAccepted(t *testing.T) {
	t.Parallel()
	in := start(t)
	org := into[Organization](t, in.must(http.StatusCreated, "POST", "/v1/organizations", exampleNewOrganization))
	in.must(http.StatusCreated, "POST", "/v1/spaces", exampleNewSpace)
	in.must(http.StatusCreated, "POST", "/v1/accounts", exampleNewAccount)
	k := into[CreatedKey](t, in.must(http.StatusCreated, "POST", "/v1/keys", exampleNewKey))
	for _, pair := range [][2]string{{k.ID, exampleKey.ID}, {org.ID, exampleOrgID}, {k.Account, exampleKey.Account}} {
		if len(pair[0]) != len(pair[1]) || pair[0][:4] != pair[1][:4] {
			t.Errorf("the example has the id %q where a real one is %q", pair[1], pair[0])
		}
	}
	shown, actual := fields(t, exampleCreatedKey), fields(t, k)
	if fmt.Sprint(shown) != fmt.Sprint(actual) {
		t.Errorf("the example answer has %v, a real one %v", shown, actual)
	}
}

// fields lists the names that v has in JSON, in order.
func fields(t *testing.T, v any) []string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	var names []string
	_, _ = d.Token()
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprint(name))
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			t.Fatal(err)
		}
	}
	return names
}
