package test

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// h2specCases is how many h2spec has, with those that it calls strict.
const h2specCases = 146

// failedByNetHTTP are h2spec's cases that net/http's server does not pass, and with it
// no gate in Go. A test fails where another one is added, or one of them passes.
var failedByNetHTTP = []struct {
	id, name string
	https    bool // also over TLS
	harmless string
}{
	{
		"http2/3.5/2", "Sends invalid connection preface", false,
		"a port that speaks both reads it as HTTP/1.1, answers 400 and closes; h2spec wants the close alone",
	},
	{
		"http2/4.2/3", "Sends a large size HEADERS frame that exceeds the SETTINGS_MAX_FRAME_SIZE", true,
		"it does not: the server announces 1 MiB, and h2spec goes by the default of 16 KiB; the header has its own bound",
	},
	{
		"http2/6.5.3/1", "Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE", true,
		"a setting twice in one frame ends the connection, which is the sender's own; no known client does it",
	},
	{
		"http2/8.1.2.2/1", "Sends a HEADERS frame that contains the connection-specific header field", true,
		"answered 400 and not reset, as RFC 9113, section 8.1.1, allows; nothing is forwarded (TestNothingIsSmuggledDown)",
	},
	{
		"http2/8.1.2.2/2", `Sends a HEADERS frame that contains the TE header field with any value other than "trailers"`, true,
		"the same",
	},
}

// h2spec holds the HTTP/2 of both listeners to RFC 7540 and RFC 7541. Its requests have
// a key and go through the gate to an upstream. The gate fails the cases that net/http
// alone fails in the same run, which are named above, and no other.
func TestH2spec(t *testing.T) {
	if !full() {
		t.Skip("KEYGATE_TEST_FULL runs it")
	}
	t.Parallel()
	hello := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello\n") // cases about windows need a body
	}
	api, files := newUpstream(t, hello), newCertificate(t, 1)
	g := start(t, settings{
		"KEYGATE_UPSTREAM": api.URL, "KEYGATE_DEFAULT_PLAN": "enterprise", "KEYGATE_FAILED_PER_ADDRESS": "off",
		"KEYGATE_TLS_ADDR": "127.0.0.1:0", "KEYGATE_TLS_CERT": files.cert, "KEYGATE_TLS_KEY": files.key,
	})
	spec := h2spec{buildH2spec(t), g.newKey("h2spec").Secret}
	for name, at := range map[string]string{"HTTPS": g.secureURL(), "HTTP": g.proxy} {
		t.Run(name, func(t *testing.T) {
			https, before := name == "HTTPS", api.count.Load()
			bare, gate := spec.run(t, bareServer(t, https, hello)), spec.run(t, at)
			if len(bare) != h2specCases || len(gate) != h2specCases {
				t.Fatalf("%d cases, %d with the bare server, want %d", len(gate), len(bare), h2specCases)
			}
			passed := h2specCases
			for _, known := range failedByNetHTTP {
				if !https || known.https {
					passed--
					if gate[known.id].failure == "" || bare[known.id].failure == "" || gate[known.id].name != known.name {
						t.Errorf("%s is named, but the gate has %+v and the bare server %+v", known.id, gate[known.id], bare[known.id])
					}
					delete(gate, known.id)
				}
			}
			for id, c := range gate {
				if c.failure != "" && spec.failsAlone(t, at, id) {
					t.Errorf("%s %s: %s\nthe bare server: %q", id, c.name, c.failure, bare[id].failure)
				}
			}
			forwarded := api.count.Load() - before
			t.Logf("%d of %d cases pass; %d requests reached the upstream", passed, h2specCases, forwarded)
			if forwarded < h2specCases/4 { // most cases are malformed or about the connection
				t.Error("so few are no test of what is forwarded")
			}
		})
	}
	if a := g.do(http.MethodGet, g.management+"/metrics", "", ""); strings.Contains(a.body, `decision="unauthenticated"`) {
		t.Error("some requests had no key")
	}
	g.stop()
}

// h2spec is the program and the key that it sends.
type h2spec struct{ file, key string }

// h2specCase is what came of a case; the failure is empty if it passed.
type h2specCase struct{ name, failure string }

// failsAlone runs a case that failed three times more, by itself. Many wait for a frame
// for 2 s, so that one may fail where the machine stands still for so long; what is
// wrong with the gate fails again.
func (h h2spec) failsAlone(t *testing.T, at, id string) bool {
	t.Helper()
	for range 3 {
		again := h.run(t, at, id)
		if len(again) != 1 {
			t.Fatalf("%s alone is %d cases", id, len(again))
		}
		for _, c := range again { // numbered anew
			if c.failure != "" {
				return true
			}
		}
	}
	t.Logf("%s failed among the others, and passes alone", id)
	return false
}

// run tries the cases named, or all, and returns them by their numbers.
func (h h2spec) run(t *testing.T, at string, only ...string) map[string]h2specCase {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report.xml")
	args := []string{"--strict", "--host", u.Hostname(), "--port", u.Port(), "--path", "/x", "--junit-report", report}
	if u.Scheme == "https" {
		args = append(args, "--tls", "--insecure")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	c := exec.CommandContext(ctx, h.file, append(args, only...)...)
	c.Env = []string{"H2SPEC_AUTHORIZATION=Bearer " + h.key}
	out, _ := c.CombinedOutput() // its code is 1 where a case failed; without a report something else did
	f, err := os.Open(report)
	if err != nil {
		t.Fatalf("h2spec left no report: %v; it said:\n%s", err, out)
	}
	defer f.Close()
	var suites struct {
		All []struct {
			Section string `xml:"package,attr"`
			Cases   []struct {
				Name    string  `xml:"classname,attr"`
				Error   *string `xml:"error"`
				Failure *string `xml:"failure"`
				Skipped *string `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	d := xml.NewDecoder(f)
	d.Strict = false // it quotes what it got as it is
	if err := d.Decode(&suites); err != nil {
		t.Fatal(err)
	}
	cases := make(map[string]h2specCase)
	for _, suite := range suites.All {
		for i, one := range suite.Cases {
			c := h2specCase{name: one.Name}
			for what, text := range map[string]*string{"error": one.Error, "failure": one.Failure, "skipped": one.Skipped} {
				if text != nil {
					c.failure = what + " " + *text
				}
			}
			cases[fmt.Sprintf("%s/%d", suite.Section, i+1)] = c
		}
	}
	return cases
}

// bareServer is net/http's own, with the protocols that the gate speaks.
func bareServer(t *testing.T, https bool, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // which has a line for most cases
	if https {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	}
	t.Cleanup(s.Close)
	return s.URL
}

// buildH2spec makes h2spec, in the version of the module tools, with one line more: it
// knows no option for a header, and without a key nothing would reach an upstream.
func buildH2spec(t *testing.T) string {
	t.Helper()
	const module, last = "github.com/summerwind/h2spec", `HeaderField(":authority", authority),`
	source, dir := inTools(t, "list", "-f", "{{.Dir}}", module), t.TempDir()
	replacement, modules, file := filepath.Join(dir, "source"), filepath.Join(dir, "go.mod"), filepath.Join(dir, "h2spec")
	if err := os.CopyFS(replacement, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	headers := filepath.Join(replacement, "spec", "util.go")
	text := read(t, headers)
	if strings.Count(text, last) != 1 {
		t.Fatal("this h2spec is another than the one that the line was meant for")
	}
	write(t, headers, strings.NewReplacer(
		last, last+`HeaderField("authorization", os.Getenv("H2SPEC_AUTHORIZATION")),`,
		`"errors"`, `"errors"; "os"`,
	).Replace(text))
	write(t, filepath.Join(replacement, "go.mod"), "module "+module+"\n")
	write(t, modules, read(t, "../tools/go.mod")+fmt.Sprintf("replace %s => %s\n", module, replacement))
	write(t, filepath.Join(dir, "go.sum"), read(t, "../tools/go.sum"))
	inTools(t, "build", "-modfile", modules, "-o", file, module+"/cmd/h2spec")
	return file
}

// inTools runs the go command in the module tools and returns what it said.
func inTools(t *testing.T, command string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "go", append([]string{command, "-C", "../tools"}, args...)...)
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", command, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}
