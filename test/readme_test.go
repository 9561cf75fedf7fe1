package test

import (
	"context"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadmeTour runs the blocks of the README's tour in one shell, as a reader
// would. Only the ports and the place of the policy are others than written, so
// that the test disturbs nothing that runs on the machine.
func TestReadmeTour(t *testing.T) {
	dir := t.TempDir()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, tour, found := strings.Cut(string(readme), "## Five-minute tour")
	tour, _, ended := strings.Cut(tour, "\n## ")
	if !found || !ended {
		t.Fatal("the README has no section \"Five-minute tour\"")
	}
	var script strings.Builder
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(tour, -1) {
		script.WriteString(block[1])
	}
	policy, err := os.ReadFile("../docs/tour/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	gate, admin, api := freePort(t), freePort(t), freePort(t)
	ports := strings.NewReplacer("8080", gate, "9001", api)
	policyFile := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policyFile, []byte(ports.Replace(string(policy))), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(ports.Replace(script.String()), "docs/tour/policy.yaml", policyFile)

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", text)
	cmd.Dir = ".."
	// What configures the tests, or a keygate elsewhere, is not the reader's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KEYGATE_") })
	cmd.Env = append(cmd.Env, "TMPDIR="+dir, "KEYGATE_ADDR=127.0.0.1:"+gate, "KEYGATE_ADMIN_ADDR=127.0.0.1:"+admin, "KEYGATE_ADMIN_URL=http://127.0.0.1:"+admin)
	// Its own process group: whatever a failed tour leaves behind ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	if err != nil {
		logs, _ := filepath.Glob(filepath.Join(dir, "*", "keygate.log")) // in the tour's own directory
		for _, name := range logs {
			log, _ := os.ReadFile(name)
			out = append(out, log...)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	// What the reader must have seen, in this order.
	want := regexp.MustCompile(`(?s)` + strings.Join([]string{
		`reporting +kg_live_….{4} +active +acme +berlin`,
		`"x-keygate-organization-slug": "acme"`,
		`API key is missing`,
		`this route is not about a space`,
		`\n404\n`,
		`scope +skip`,
		`it would be refused`,
		`Lacks +orders:write`,
		`it lacks a scope`,
		`\n200\n200\n`,
		`401\n200\n401\n`,
		`200 200 200 429 \n200\n`,
		`key.revoke .* key.rotate .* organization.create`,
	}, `.*`))
	if !want.Match(out) {
		t.Errorf("the tour printed\n%s", out)
	}
}

// freePort is a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	// Below those that systems give to whoever asks for any: another test's server
	// could get this one's before it is used.
	for range 100 {
		port := strconv.Itoa(15_000 + rand.IntN(15_000))
		ln, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			ln.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}
