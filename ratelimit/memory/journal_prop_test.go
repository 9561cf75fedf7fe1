package memory

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/ratelimit"
)

// A faultyDisk has room or not, takes half of what it is given, or all of it
// without saying so, and forgets in a crash what it did not confirm, or some of it.
type faultyDisk struct {
	t         *rapid.T
	fault     string
	confirmed int64 // bytes of the journal
}

var faultsOfDisks = []string{"none", "no room", "half a write", "no word of a sync", "no new file", "none"}

type faultyFile struct {
	*os.File
	disk    *faultyDisk
	journal bool // and not a new one that has yet to take its place
	size    int64
}

var errDisk = errors.New("the disk's fault")

func (d *faultyDisk) open(path string, flag int) (file, error) {
	if created := flag&os.O_CREATE != 0; created && d.fault == "no new file" {
		return nil, errDisk
	}
	f, err := os.OpenFile(path, os.O_WRONLY|flag, 0o600)
	if err != nil {
		return nil, err
	}
	at, err := f.Stat()
	opened := &faultyFile{f, d, flag&os.O_APPEND != 0, at.Size()}
	if opened.journal {
		d.confirmed = opened.size // or it would not have taken the former one's place
	}
	return opened, err
}

func (f *faultyFile) Write(b []byte) (n int, err error) {
	switch f.disk.fault {
	case "no room":
		return 0, errDisk
	case "half a write":
		b, err = b[:len(b)/2], errDisk
	}
	n, _ = f.File.Write(b)
	f.size += int64(n)
	return n, err
}

func (f *faultyFile) Sync() error {
	if f.disk.fault == "no word of a sync" {
		return errDisk
	}
	if f.journal {
		f.disk.confirmed = f.size
	}
	return nil
}

// crash leaves of what was not confirmed what it likes.
func (d *faultyDisk) crash(path string) {
	at, err := os.Stat(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if more := at.Size() - d.confirmed; more > 0 {
		if err := os.Truncate(path, d.confirmed+rapid.Int64Range(0, more).Draw(d.t, "left")); err != nil {
			d.t.Fatal(err)
		}
	}
}

// Whatever the disk does, and whenever the process dies: no more of a quota is given
// than it has. An ask that the disk has no room for leaves counts and claims as they
// were, and so does the hundredth of them: a crash afterwards costs what had been
// claimed at most once. A disk that is well again needs no restart.
//
// Failed asks used to be charged, each with a claim further ahead than the last:
// what was left of the quota was gone after a crash.
func TestQuotaOnAFaultyDisk(t *testing.T) {
	t.Parallel()
	quick := "/dev/shm" // syncs cost nothing there
	if at, err := os.Stat(quick); err != nil || !at.IsDir() {
		quick = ""
	}
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(quick, "ledger")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		c, disk := newClock(), &faultyDisk{t: t, fault: "none"}
		quota := rapid.Int64Range(20, 2000).Draw(t, "quota")
		limits := []ratelimit.Limit{monthly(c, quota), key("minute", 1_000_000, time.Minute)}
		var l *Ledger
		start := func() {
			var found Found
			if l, found, err = Open(dir, Options{Now: c.now}); err != nil || found.Warning != nil {
				t.Fatal(err, found.Warning)
			}
			disk.fault = "none"
			if err := l.journal.file.Close(); err != nil {
				t.Fatal(err)
			}
			l.journal.open = disk.open
			if l.journal.file, err = disk.open(l.journal.path, os.O_APPEND); err != nil {
				t.Fatal(err)
			}
		}
		start()
		spent := func() int64 { return charged(l, "org_a", "org_a", "month") }
		given, claimed := int64(0), int64(0)
		leased, sessions := map[string]int64{}, 0
		give := func(a ratelimit.Ask) ratelimit.Grant {
			before, live := spent(), maps.Clone(l.journal.live)
			claimed = max(claimed, min(quota, before+max(a.Take+a.Want, quota/blocks)))
			grants := make([]ratelimit.Grant, 1)
			if err := l.Lease(nilContext{}, []ratelimit.Ask{a}, grants); err != nil {
				if disk.fault == "none" {
					t.Fatalf("the disk is well: %v", err)
				}
				if now := spent(); now != before || !maps.Equal(live, l.journal.live) {
					t.Fatalf("%d were charged before an ask that failed, %d after it; claims %v and %v", before, now, live, l.journal.live)
				}
				return ratelimit.Grant{}
			}
			if grants[0].Status == ratelimit.Denied && before+a.Cost <= quota {
				t.Fatalf("%+v is denied: %+v", a, grants[0])
			}
			return grants[0]
		}
		for range rapid.IntRange(10, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 20).Draw(t, "step") {
			case 0, 1, 2, 10, 11, 12, 13, 14:
				a := takeAsk(rapid.Int64Range(1, 1+quota/5).Draw(t, "take"), limits...)
				given += give(a).Taken
			case 3, 4, 15, 16:
				sessions++
				id := fmt.Sprint("s", sessions)
				a := takeAsk(0, limits...)
				a.Session, a.Want = id, rapid.Int64Range(1, 1+quota/20).Draw(t, "want")
				leased[id] = give(a).Leased
				given += leased[id]
			case 5:
				for id, n := range leased { // one that has spent nothing
					a := takeAsk(0, limits...)
					a.Session, a.Seen, a.Release = id, n, true
					if give(a).Status != ratelimit.Denied { // also where it comes after its end
						given -= n
					}
					delete(leased, id)
					break
				}
			case 6, 7, 17, 18:
				disk.fault = rapid.SampledFrom(faultsOfDisks).Draw(t, "fault")
			case 8, 19, 20:
				c.advance(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			case 9:
				disk.crash(l.journal.path)
				clear(leased) // given for good: nobody says otherwise
				if start(); spent() > max(claimed, given) {
					t.Fatalf("after a crash %d count as spent, at most %d were claimed", spent(), claimed)
				}
			}
			if given > quota || spent() < given {
				t.Fatalf("%d of %d given, %d charged", given, quota, spent())
			}
		}
	})
}

// A claim that was decided on at the end of a period, and came to the journal after
// one for the next, took its place: a crash then gave the new period's units anew.
func TestClaimOfAPeriodThatIsOver(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	first, second := c.now().Add(time.Hour).UnixMicro(), c.now().Add(2*time.Hour).UnixMicro()
	c.advance(time.Hour)
	for _, claims := range []claim{{"org_a", "org_a", "month", second, 60}, {"org_a", "org_a", "month", first, 100}} {
		if err := l.journal.add([]claim{claims}, l.clock); err != nil {
			t.Fatal(err)
		}
	}
	l, _ = reopen(t, dir, c)
	limit := ratelimit.Limit{Name: "month", Holder: "org_a", Quota: 100, Start: time.UnixMicro(first), End: time.UnixMicro(second), NextEnd: c.now().Add(3 * time.Hour)}
	if g := peek(t, l, limit); g.Limits[0].Remaining != 40 {
		t.Errorf("%d of 100 are left after a crash, 60 were claimed", g.Limits[0].Remaining)
	}
}

// Of several asks in one call none is counted if the disk has no room for one of
// them, and what all of them need is one write.
func TestBatchNeedsTheDiskOnce(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	var asks []ratelimit.Ask
	for i := range 5 {
		a := takeAsk(1, monthly(c, 100), key("minute", 10, time.Minute))
		a.Limits[0].Holder = fmt.Sprint("org_", i)
		asks = append(asks, a)
	}
	ask(t, l, asks[0])
	disk := &faultyDisk{fault: "no room"}
	l.journal.open = disk.open
	l.journal.file = &faultyFile{disk: disk}
	grants := make([]ratelimit.Grant, len(asks))
	if err := l.Lease(nilContext{}, asks, grants); err == nil || charged(l, "org_a", "org_0", "month") != 1 || charged(l, "org_a", "key_a", "minute") != 1 {
		t.Fatalf("%v, %d and %d charged", err, charged(l, "org_a", "org_0", "month"), charged(l, "org_a", "key_a", "minute"))
	}
	disk.fault = "none"
	if err := l.Lease(nilContext{}, asks, grants); err != nil {
		t.Fatal(err)
	}
	writes := 0
	l.journal.file = counting{l.journal.file, &writes}
	asks[1].Take, asks[2].Take = 20, 20
	if err := l.Lease(nilContext{}, asks, grants); err != nil || writes != 1 {
		t.Errorf("%d writes, %v", writes, err)
	}
}

type counting struct {
	file
	writes *int
}

func (c counting) Write(b []byte) (int, error) {
	*c.writes++
	return c.file.Write(b)
}

// A journal that is due to be written anew, for which there is no room, goes on
// with the file that it has: what was asked for is on the disk.
func TestCompactionWithoutRoom(t *testing.T) {
	dir, c := t.TempDir(), newClock()
	l, _ := reopen(t, dir, c)
	inTheWay := fmt.Sprint(l.journal.path, ".new", os.Getpid())
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	l.journal.lines = 2 * compactAfter
	for n := range int64(3) {
		if err := l.journal.add([]claim{{"org_a", "org_a", "month", c.now().Add(time.Hour).UnixMicro(), 1 + n}}, l.clock); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	if l, _ = reopen(t, dir, c); charged(l, "org_a", "org_a", "month") != 3 {
		t.Error("a claim is missing")
	}
}

// What is asked while the ledger ends is not given: it would be in no file. An ask
// that had found the ledger open used to be decided after the state was saved.
func TestNothingIsGivenAfterTheStateIsSaved(t *testing.T) {
	c := newClock()
	l, _ := reopen(t, t.TempDir(), c)
	a := takeAsk(1, key("minute", 10, time.Minute))
	l.now = func() time.Time { // between the ask's arrival and its decision
		l.now = c.now
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		return c.now()
	}
	if err := l.Lease(nilContext{}, []ratelimit.Ask{a}, make([]ratelimit.Grant, 1)); !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
}
