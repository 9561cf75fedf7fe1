package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

const schemaFile = "../docs/policy.schema.json"

// The committed schema is generated: go test ./config -run TestSchemaIsInStep -update
func TestSchemaIsInStep(t *testing.T) {
	schema, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, schema, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(readFile(t, schemaFile)), string(schema)); diff != "" {
		t.Errorf("%s is not in step: run go test ./config -run TestSchemaIsInStep -update\n%s", schemaFile, diff)
	}
}

// Whoever adds a field describes it.
func TestEveryFieldIsDescribed(t *testing.T) {
	var check func(path string, f form)
	check = func(path string, f form) {
		for _, of := range f {
			switch {
			case of.support != offered:
			case of.title == "" || !strings.HasSuffix(of.doc, ".") || of.shape == nil || of.shape.words == "":
				t.Errorf("%s%s has no title, description or shape", path, of.name)
			case strings.ContainsAny(of.doc+of.shape.words+of.absent, "|\n"):
				t.Errorf("%s%s cannot stand in a table", path, of.name)
			default:
				check(path+of.name+of.shape.inside, of.shape.fields)
			}
		}
	}
	check("", policyForm)
}

func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy.schema.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// judge says whether an editor that knows the schema would refuse a file.
func judge(schema *jsonschema.Schema, file []byte) error {
	var document any
	if err := yaml.Unmarshal(file, &document); err != nil {
		return err
	}
	return schema.Validate(asJSON(document))
}

// asJSON makes of a YAML value what editors make of it.
func asJSON(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = asJSON(e)
		}
		return v
	case map[any]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[fmt.Sprint(k)] = asJSON(e)
		}
		return out
	case []any:
		for i, e := range v {
			v[i] = asJSON(e)
		}
		return v
	case string, bool, int, float64, nil:
		return v
	}
	return fmt.Sprint(v) // dates and numbers beyond int
}

func TestSchemaTakesGoodPolicies(t *testing.T) {
	schema := compiledSchema(t)
	for _, file := range []string{"testdata/supported.yaml", "../docs/tour/policy.yaml"} {
		if err := judge(schema, readFile(t, file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := judge(schema, []byte(builtinPolicy)); err != nil {
		t.Error(err)
	}
	for i, part := range strings.Split(string(readFile(t, "../docs/configuration.md")), "```yaml\n")[1:] {
		policy, _, _ := strings.Cut(part, "```")
		if err := judge(schema, []byte(policy)); err != nil {
			t.Errorf("policy %d of the page: %v", i, err)
		}
	}
}

// decoderOnly are the files of testdata/bad whose mistakes a schema cannot see,
// and why.
var decoderOnly = map[string]string{
	"implies-cycle.yaml":            "reference",
	"limit-timezone.yaml":           "reference, and a dependency of fields",
	"limit-twice.yaml":              "names in a list",
	"merge-key.yaml":                "an editor merges before it looks",
	"name-not-text.yaml":            "an editor takes 2024 for a name",
	"route-conflict.yaml":           "conflict",
	"route-permission-unknown.yaml": "reference",
	"route-upstream-choice.yaml":    "reference",
	"route-upstream-none.yaml":      "reference",
	"route-upstream.yaml":           "reference",
	"two-documents.yaml":            "an editor looks at each",
	"upstream-health.yaml":          "what each kind of check needs",
}

func TestSchemaRefusesBadPolicies(t *testing.T) {
	schema := compiledSchema(t)
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files in testdata/bad", err)
	}
	stale := maps.Clone(decoderOnly)
	for _, file := range files {
		name := filepath.Base(file)
		_, expected := decoderOnly[name]
		delete(stale, name)
		switch err := judge(schema, readFile(t, file)); {
		case err == nil && !expected:
			t.Errorf("%s: the schema takes it", name)
		case err != nil && expected:
			t.Errorf("%s: the schema refuses it, so that decoderOnly need not have it: %v", name, err)
		}
	}
	for name := range stale {
		t.Errorf("decoderOnly has %s, which is not there", name)
	}
}

// structural are the beginnings of messages about what a schema sees.
var structural = []string{"is missing", "is an unknown field", "must be ", "is empty", "is not supported yet", "is an empty list", "is not allowed on a public route"}

// Policies with every field, of which each value is replaced by others, left out
// and joined by one that nobody knows: the schema never refuses what the decoder
// takes, and takes nothing that the decoder refuses for its structure.
func TestSchemaAgreesWithDecoder(t *testing.T) {
	schema := compiledSchema(t)
	policies := []string{`
version: 1
upstreams: { api: { targets: ["http://127.0.0.1:9001"] } }
permissions:
  "a:read": { group: Read, title: Read, description: Read it, administrative: false }
  "a:all": { implies: ["a:*"] }
roles: { viewer: ["a:read"] }
plans:
  gold: { limits: [{ name: minute, requests: 10, per: 1m }, { name: month, requests: 10, per: month, timezone: Europe/Zurich, shared: true }], max_keys: 3, concurrent: 4, outage: { mode: open, keys: 5m } }
routes:
  - { match: "GET /a/{org}/{space}", upstream: api, permission: "a:read", organization: "path:org", space: "path:space" }
  - { match: "GET /b", permission: ["a:read"], cost: { header: X-Cost, reserve: 5, max: 9 } }
  - { match: "GET /d", permission: any, cost: 5 }
  - { match: "GET /c", public: { per_address: "60/1m" } }
`, `
version: 1
upstreams:
  api:
    targets: ["https://127.0.0.1:9001", "h2c://127.0.0.1:9002"]
    balance: least_requests
    health: { type: http, path: /healthz, every: 5s }
    timeouts: { connect: 1s, tls: 1s, first_byte: 1s, idle: 1s, total: 1s }
    tls: { ca: CA, cert: CERT, key: KEY, server_name: api }
    max_concurrent: 7
    breaker: { failures: 50%, requests: 20, window: 10s, open: 5s }
    retry_budget: 20%
routes:
  - { match: "/a", permission: any }
`, `
version: 1
upstreams:
  api: { targets: ["h2c://127.0.0.1:9001"], health: { type: grpc, service: s } }
routes:
  - match: "GET /b"
    permission: any
    timeouts: { connect: 1s, tls: 1s, first_byte: 1s, idle: 1s, total: 1s }
    retries: 2
    max_body: 1MiB
    forward_key: true
    rewrite: { strip: /b, prefix: /c, host: api.internal }
    request_headers: { set: { X-A: a }, add: { X-B: b }, remove: [X-C] }
    response_headers: { set: { X-A: a }, add: { X-B: b }, remove: [X-C] }
`}
	others := []any{
		nil, true, 0, 7, -1, 1.5, "", " ", "text", "a:read", "a:*", "*", "any", "1m", "0", "-1s", "1.5h.5s", "60/1m", "strict", "/x", "HTTP://h:1/a@b", "path:org",
		"header:X-A", "query:a[b]",
		[]any{},
		[]any{nil},
		[]any{"a:read"},
		[]any{"a:read", "a:read"},
		[]any{map[string]any{}},
		map[string]any{},
		map[string]any{"x": 1},
	}
	seen := make(map[string]bool)
	taken := 0
	try := func(document any) {
		text, err := yaml.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		_, err = ParsePolicy("policy", text)
		refused := judge(schema, text)
		if err == nil {
			taken++
			if refused != nil {
				t.Errorf("the schema refuses a good policy: %v\n%s", refused, text)
			}
			return
		}
		problems, ok := errors.AsType[*Error](err)
		if !ok {
			t.Fatal(err)
		}
		for _, p := range problems.Problems {
			visible := slices.ContainsFunc(structural, func(s string) bool { return strings.HasPrefix(p.Message, s) })
			if visible && refused == nil {
				t.Errorf("the schema takes what the decoder refuses: %s\n%s", p, text)
			}
		}
	}
	files := pemFiles(t)
	for _, policy := range policies {
		var document any
		if err := yaml.Unmarshal([]byte(strings.NewReplacer("CA,", files[0]+",", "CERT,", files[0]+",", "KEY,", files[1]+",").Replace(policy)), &document); err != nil {
			t.Fatal(err)
		}
		try(document)
		eachPlace(document, func(path string, get any, set func(any), drop func()) {
			seen[path] = true
			for _, other := range others {
				set(other)
				try(document)
			}
			set(get)
			if m, ok := get.(map[string]any); ok {
				for name, other := range map[string]any{"unknown": 1, "public": map[string]any{"per_address": "1/1s"}, "permission": "any"} {
					if _, there := m[name]; !there {
						m[name] = other
						try(document)
						delete(m, name)
					}
				}
			}
			if drop != nil {
				drop()
				try(document)
				set(get)
			}
		})
	}
	if taken < 50 {
		t.Errorf("only %d changes made a good policy", taken)
	}
	everyField("", policyForm, func(path string) {
		if !seen[path] {
			t.Errorf("no policy has %s: this test does not see it", path)
		}
	})
}

// pemFiles writes a certificate and its key.
func pemFiles(t testing.TB) [2]string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"api"}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var files [2]string
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: certificate}, {Type: "PRIVATE KEY", Bytes: private}} {
		files[i] = filepath.Join(t.TempDir(), "file.pem")
		if err := os.WriteFile(files[i], pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// eachPlace visits every value inside a document, with its path as the reference
// writes it.
func eachPlace(document any, visit func(path string, get any, set func(any), drop func())) {
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				place := path + "." + k
				if path == "" {
					place = k
				} else if slices.Contains([]string{"upstreams", "permissions", "roles", "plans"}, path) || strings.HasSuffix(path, "_headers.set") || strings.HasSuffix(path, "_headers.add") {
					place = path + ".NAME"
				}
				e := v[k]
				visit(place, e, func(x any) { v[k] = x }, func() { delete(v, k) })
				walk(place, e)
			}
		case []any:
			for i, e := range v {
				visit(path+"[]", e, func(x any) { v[i] = x }, nil)
				walk(path+"[]", e)
			}
		}
	}
	walk("", document)
}

// everyField visits the fields that work.
func everyField(path string, f form, visit func(path string)) {
	for _, of := range f {
		if of.support == offered {
			visit(path + of.name)
			everyField(path+of.name+of.shape.inside, of.shape.fields, visit)
		}
	}
}
