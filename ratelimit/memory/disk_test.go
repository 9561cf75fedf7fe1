package memory

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keygate/ratelimit"
)

// reopen opens the ledger of a directory on a clock.
func reopen(t *testing.T, dir string, c *fakeClock) (*Ledger, Found) {
	t.Helper()
	l, found, err := Open(dir, Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return l, found
}

func monthly(c *fakeClock, quota int64) ratelimit.Limit {
	end := newClock().now().Add(20 * 24 * time.Hour)
	return ratelimit.Limit{Name: "month", Holder: "org_a", Quota: quota, Start: end.AddDate(0, -1, 0), End: end, NextEnd: end.AddDate(0, 1, 0)}
}

// An orderly end and the next start are as if nothing had happened: charges,
// leases, corrections, ended sessions, policies, to the microsecond.
func TestCleanRestartIsExact(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, found := reopen(t, dir, c)
	if found.Clean || found.Crashed || found.Warning != nil {
		t.Fatalf("first start: %+v", found)
	}
	twin := New(Options{Now: c.now}) // goes on without a restart
	both := func(do func(l *Ledger) string) {
		t.Helper()
		if got, want := do(l), do(twin); got != want {
			t.Fatalf("restarted\n%s, want\n%s", got, want)
		}
	}
	limits := []ratelimit.Limit{key("minute", 100, time.Minute), monthly(c, 1000), shared("hour", 500, time.Hour)}
	lease := func(session string, spent, seen, want, take int64, release bool) func(l *Ledger) string {
		return func(l *Ledger) string {
			a := takeAsk(take, limits...)
			a.Session, a.Spent, a.Seen, a.Want, a.Release, a.Rules = session, spent, seen, want, release, 3
			return fmt.Sprintf("%+v", ask(t, l, a))
		}
	}
	settle := func(n, actual int64) func(l *Ledger) string {
		return func(l *Ledger) string {
			r := ratelimit.Reservation{Organization: "org_a", Key: "key_a", Limits: limits, Session: "c", Reserved: n, At: c.now().Add(-time.Second)}
			r.Actual = actual
			return fmt.Sprint(l.settle(&r))
		}
	}
	both(lease("s", 0, 0, 5, 7, false))
	both(lease("gone", 0, 0, 5, 0, false))
	c.advance(1500 * time.Millisecond)
	both(lease("s", 1, 5, 0, 2, false))
	c.advance(time.Second)
	both(settle(4, 1))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil { // twice is once
		t.Fatal(err)
	}
	if err := l.Lease(nilContext{}, []ratelimit.Ask{takeAsk(1, limits...)}, make([]ratelimit.Grant, 1)); err == nil {
		t.Error("a closed ledger grants")
	}
	c.advance(400 * time.Millisecond)
	l, found = reopen(t, dir, c)
	if !found.Clean || found.Crashed || found.Warning != nil {
		t.Fatalf("%+v", found)
	}
	both(settle(4, 1))
	both(settle(6, 1))
	both(lease("s", 3, 5, 2, 1, false))
	both(lease("gone", 2, 5, 0, 0, true))
	both(func(l *Ledger) string { return fmt.Sprintf("%+v", ask(t, l, takeAsk(1, limits...))) }) // stale
	for range 30 {
		c.advance(7 * time.Second)
		both(lease("", 0, 0, 0, 4, false))
	}
}

// A state is believed once: whoever copies a directory of a running instance, or
// starts again after a crash, does not get budgets back.
func TestStateIsUsedOnce(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	ask(t, l, takeAsk(1, key("minute", 10, time.Minute)))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, _ = reopen(t, dir, c)
	ask(t, l, takeAsk(5, key("minute", 10, time.Minute)))
	// The process dies here.
	l, found := reopen(t, dir, c)
	if !found.Crashed || found.Clean {
		t.Fatalf("%+v", found)
	}
	if g := peek(t, l, key("minute", 10, time.Minute)); g.Limits[0].Remaining != 10 {
		t.Fatalf("%+v", g) // windows are forgotten, and not those of long ago remembered
	}
}

// What a process gave of a quota before it died is not given again: at most a
// fiftieth of the quota is lost, whatever the moment.
func TestCrashNeverGivesAQuotaTwice(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	const quota = 1000
	given, crashes := int64(0), int64(0)
	for {
		l, found := reopen(t, dir, c)
		if found.Crashed != (crashes > 0) || found.Warning != nil {
			t.Fatalf("%+v after %d crashes", found, crashes)
		}
		alive := true
		for range 1 + 37*(crashes+1)%60 {
			a := takeAsk(1+crashes%3, monthly(c, quota), key("minute", 10_000, time.Minute))
			a.Cost = a.Take
			if crashes%2 == 1 { // leased, and never reported
				a.Session, a.Want, a.Take, a.Cost = "s", 3, 0, 1
			}
			g := ask(t, l, a)
			given += g.Taken
			if g.Leased > 0 {
				given += g.Leased // all of it may have been spent
				release := a
				release.Session, release.Want, release.Seen, release.Spent, release.Release = "s", 0, g.Leased, g.Leased, true
				ask(t, l, release)
			}
			if alive = g.Status != ratelimit.Denied; !alive {
				break
			}
			c.advance(time.Millisecond)
		}
		if given > quota {
			t.Fatalf("%d given of %d", given, quota)
		}
		if !alive {
			break
		}
		crashes++
	}
	if lost := quota - given; crashes < 5 || lost > (crashes+1)*(quota/blocks)+3 {
		t.Errorf("%d given after %d crashes", given, crashes)
	}
	// The next period is whole.
	c.advance(21 * 24 * time.Hour)
	l, _ := reopen(t, dir, c)
	if g := peek(t, l, monthly(c, quota)); g.Limits[0].Remaining != quota {
		t.Errorf("%+v", g)
	}
}

// What cannot be claimed on the disk is not given.
func TestQuotaNeedsTheDisk(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	ask(t, l, takeAsk(1, monthly(c, 100)))
	if err := l.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	grants := make([]ratelimit.Grant, 1)
	if err := l.Lease(nilContext{}, []ratelimit.Ask{takeAsk(1, monthly(c, 100))}, grants); err != nil {
		t.Errorf("what was claimed before needs no disk: %v", err)
	}
	if err := l.Lease(nilContext{}, []ratelimit.Ask{takeAsk(5, monthly(c, 100))}, grants); err == nil {
		t.Error("given without a claim")
	}
	ask(t, l, takeAsk(1, key("minute", 10, time.Minute))) // windows need none
}

// A disk that took half of a claim, and then nothing, left a line that the next claim
// was added to: the two were one that is damaged, and so after a crash the second
// counted as cut off, though it had been given.
func TestClaimAfterAFullDisk(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	ask(t, l, takeAsk(1, monthly(c, 100)))
	file := l.journal.file
	if _, err := file.Write([]byte(`12345678 {"Place":`)); err != nil {
		t.Fatal(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	inTheWay := fmt.Sprint(l.journal.path, ".new", os.Getpid()) // of a new file
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	l.journal.file = full
	grants := make([]ratelimit.Grant, 1)
	for range 2 {
		if err := l.Lease(nilContext{}, []ratelimit.Ask{takeAsk(50, monthly(c, 100))}, grants); err == nil {
			t.Fatal("given without a claim")
		}
	}
	l.journal.file = file
	if err := os.Remove(inTheWay); err != nil { // there is room again
		t.Fatal(err)
	}
	ask(t, l, takeAsk(50, monthly(c, 100)))
	l, found := reopen(t, dir, c)
	if found.Warning != nil {
		t.Error(found.Warning)
	}
	if g := peek(t, l, monthly(c, 100)); g.Limits[0].Remaining > 100-51 {
		t.Errorf("after a crash %d of 100 are left, of which 51 were given", g.Limits[0].Remaining)
	}
}

// A start on a disk without room took the journal, which it could read and not write
// anew, for damaged, and put it aside: quotas began anew as soon as there was room.
func TestStartOnAFullDisk(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	ask(t, l, takeAsk(50, monthly(c, 100)))
	inTheWay := fmt.Sprint(l.journal.path, ".new", os.Getpid()) // of a new file
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it crashes again before there is room
		var found Found
		if l, found = reopen(t, dir, c); !found.Crashed || found.Warning != nil || found.Full == nil {
			t.Fatalf("%+v", found)
		}
	}
	left := peek(t, l, monthly(c, 100)).Limits[0].Remaining
	if left > 50 || left == 0 {
		t.Errorf("%d of 100 are left, of which 50 were given", left)
	}
	grants := make([]ratelimit.Grant, 1)
	if err := l.Lease(nilContext{}, []ratelimit.Ask{takeAsk(1, monthly(c, 100))}, grants); err == nil {
		t.Error("given without a claim")
	}
	if err := os.Remove(inTheWay); err != nil { // there is room again
		t.Fatal(err)
	}
	if g := ask(t, l, takeAsk(1, monthly(c, 100))); g.Taken != 1 || g.Limits[0].Remaining != left-1 {
		t.Errorf("%+v", g)
	}
	l, found := reopen(t, dir, c)
	if found.Warning != nil || found.Full != nil {
		t.Errorf("%+v", found)
	}
	if again := peek(t, l, monthly(c, 100)).Limits[0].Remaining; again >= left {
		t.Errorf("after another crash %d are left, of %d before", again, left)
	}
}

// A file that is not the ledger's, or was cut off, is not believed, and the
// operator is told.
func TestDamagedFiles(t *testing.T) {
	prepare := func() (string, *fakeClock) {
		dir, c := t.TempDir(), newClock()
		l, _ := reopen(t, dir, c)
		for range 3 {
			ask(t, l, takeAsk(10, monthly(c, 100), key("minute", 100, time.Minute)))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return dir, c
	}
	for name, damage := range map[string]func(text []byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"cut off":   func(text []byte) []byte { return text[:len(text)-1] },
		"a bit":     func(text []byte) []byte { text[len(text)/2] ^= 4; return text },
		"a version": func(text []byte) []byte { return []byte(strings.Replace(string(text), "limits 1", "limits 2", 1)) },
	} {
		dir, c := prepare()
		path := filepath.Join(dir, stateFile)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, found := reopen(t, dir, c)
		if found.Clean || !found.Crashed || found.Warning == nil || !strings.Contains(found.Warning.Error(), path) {
			t.Errorf("state, %s: %+v", name, found)
		}
		if g := peek(t, l, monthly(c, 100)); g.Limits[0].Remaining > 70 || g.Limits[0].Remaining < 66 {
			t.Errorf("state, %s: the quota has %d left", name, g.Limits[0].Remaining)
		}
	}
	// A claim that was cut off was never given; one that is damaged before others is
	// a reason not to believe those either.
	dir, c := prepare()
	if err := os.Remove(filepath.Join(dir, stateFile)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, journalFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, "0123abcd {\"place\":\"org_a\",\"hol"...), 0o600); err != nil {
		t.Fatal(err)
	}
	l, found := reopen(t, dir, c)
	if g := peek(t, l, monthly(c, 100)); found.Warning != nil || g.Limits[0].Remaining > 70 {
		t.Errorf("cut off: %+v, %+v", found, g)
	}
	text[3] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, found = reopen(t, dir, c); found.Warning == nil || !strings.Contains(found.Warning.Error(), "line 1 is damaged") {
		t.Errorf("damaged: %+v", found)
	}
}

// A wall clock that was set back over a restart frees nothing sooner.
func TestRestartWithAClockSetBack(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	ask(t, l, takeAsk(10, key("minute", 10, time.Minute)))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c.advance(-time.Hour)
	l, _ = reopen(t, dir, c)
	c.advance(time.Minute + ratelimit.CallTimeout - time.Microsecond)
	if g := ask(t, l, takeAsk(1, key("minute", 10, time.Minute))); g.Status != ratelimit.Denied {
		t.Errorf("%+v", g)
	}
	c.advance(time.Microsecond)
	if g := ask(t, l, takeAsk(10, key("minute", 10, time.Minute))); g.Taken != 10 {
		t.Errorf("%+v", g)
	}
}

// The journal does not grow with time.
func TestJournalIsCompacted(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	for i := range int64(3 * compactAfter / 2) {
		if err := l.journal.add([]claim{{"org_a", fmt.Sprint("key_", i%5), "day", c.now().UnixMicro() + 1000, i}}, l.clock); err != nil {
			t.Fatal(err)
		}
		c.advance(10 * time.Microsecond)
	}
	info, err := os.Stat(filepath.Join(dir, journalFile))
	if err != nil || info.Size() > 100*(compactAfter+100) || l.journal.lines > compactAfter+100 {
		t.Errorf("%d bytes, %d lines, %v", info.Size(), l.journal.lines, err)
	}
}
