package ratelimit_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A mutation is a mistake that somebody made, or may make. The invariants must
// notice each: random faults do not reach everything, and a suite that has never
// failed proves little.
type mutation struct{ name, file, from, to string }

var mutations = []mutation{
	{"a lease is charged from its grant", "memory/holder.go", "h.charge(now, s.exp, left)", "h.charge(now, s.exp-150_000, left)"},
	{"an ended session is revived", "memory/decide.go", "case !found && a.Spent == 0 && a.Seen == 0 && !a.Release:", "case !found && !a.Release:"},
	{"the ledger does not look at Seen", "memory/decide.go", "case !found && a.Spent == 0 && a.Seen == 0 && !a.Release:", "case !found && a.Spent == 0 && !a.Release:"},
	{"a lease lives for the longest of its limits", "memory/decide.go", "ttl = min(ttl, p.tau)", "ttl = min(ttl, 5*p.tau)"},
	{"a session known with less is taken up", "memory/decide.go", "case same && a.Seen <= granted:", "case same && granted >= 0:"},
	{"a lease outlives the period of its quota", "memory/decide.go", "p.tau = min(p.tau, b.end-s.now)", "p.tau = max(p.tau, 0)"},
	{"takes are charged from their booking", "memory/decide.go", "until := p.budget().until(s.now + s.admit)", "until := p.budget().until(s.now)"},
	{"the replica sends no Seen", "round.go", "r.ask.Spent, r.ask.Seen, r.ask.Want = total, seen, more", "r.ask.Spent, r.ask.Want = total, more"},
	{"no look at the deadline", "lease.go", "age >= v.span {", "age < 0 {"},
	{"the clock is read before the compare-and-swap", "lease.go", "		total = int64(w) + cost\n", "		total = int64(w) + cost\n		early := now()\n		now = func() time.Time { return early }\n"},
	{"the deadline counts from the receipt", "round.go", "v := &view{granted: g.Leased, sent: r.sent,", "v := &view{granted: g.Leased, sent: now,"},
	{"the deadline of a renewal counts from the receipt", "round.go", "span:    max(former.span-elapsed(former.sent, r.sent), Less2Drift(g.TTL)),", "span:    max(former.span-elapsed(former.sent, r.sent), Less2Drift(g.TTL)+200*time.Millisecond),"},
	{"a reply that says too much is believed", "round.go", "g.Leased, g.TTL = min(g.Leased, most), min(g.TTL, r.terms.tau)", "g.Leased, g.TTL = max(g.Leased, 0*most), min(g.TTL, r.terms.tau)"},
	{"a lease lives as long as the reply says", "round.go", "g.Leased, g.TTL = min(g.Leased, most), min(g.TTL, r.terms.tau)", "g.Leased, g.TTL = min(g.Leased, most), max(g.TTL, 0)"},
	{"no allowance for drift", "ledger.go", "return d - time.Duration(2*Drift*float64(d))", "return d"},
	{"late takes are admitted", "round.go", "inTime := elapsed(r.sent, now) < Less2Drift(g.Admit)", "inTime := true"},
	{"answers to a call that was given up are taken in", "round.go", "	if h.round != r {\n		return\n	}\n	h.round = nil\n	h.alone.Store(false)", "	h.round = nil\n	h.alone.Store(false)"},
	{"units are given back that were spent", "holder.go", "a.Session, a.Spent, a.Seen, a.Release = session, total, granted, true", "a.Session, a.Spent, a.Seen, a.Release = session, max(0, total-1), granted, true"},
	{"a denial is remembered for longer than it is true", "denial.go", "span := Less2Drift(retryAfter(g.Limits))", "span := 2 * retryAfter(g.Limits)"},
	{"a denial is remembered while others may give back", "denial.go", "if g.OthersHold || ", "if "},
	{"waits are counted from the sending", "denial.go", "age := Less2Drift(elapsed(d.received, now))", "age := elapsed(d.sent, now)"},
	{"an older key is let through", "memory/stop.go", "if m.version <= a.Version || m.end <= clock {", "if true {"},
}

// TestMutations makes each mistake in a copy of the sources and wants the
// invariants or the directed tests to fail there. In the light form it makes one
// of them, and only looks whether the others can be made.
func TestMutations(t *testing.T) {
	for i, m := range mutations {
		source, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), m.from); n != 1 {
			t.Errorf("%s: %q stands in %s %d times", m.name, m.from, m.file, n)
			continue
		}
		if full || i == 0 {
			t.Run(m.name, func(t *testing.T) { m.survives(t) })
		}
	}
}

func (m *mutation) survives(t *testing.T) {
	dir := t.TempDir()
	copySources(t, dir)
	file := filepath.Join(dir, "ratelimit", m.file)
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(source), m.from, m.to, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-failfast", "-timeout", "60s", "-run", "^(TestInvariants|TestTrap.*)$", "./ratelimit")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KEYGATE_TEST_FULL=")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("nobody noticed:\n%s", out)
	} else if strings.Contains(string(out), "[build failed]") {
		t.Errorf("it does not build:\n%s", out)
	}
}

// copySources copies what the package's tests need.
func copySources(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"go.mod", "go.sum"} {
		copyFile(t, filepath.Join("..", name), filepath.Join(dir, name))
	}
	for _, sub := range []string{".", "memory"} {
		entries, err := fs.Glob(os.DirFS(sub), "*.go")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, "ratelimit", sub), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range entries {
			if sub == "." || !strings.HasSuffix(name, "_test.go") {
				copyFile(t, filepath.Join(sub, name), filepath.Join(dir, "ratelimit", sub, name))
			}
		}
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
