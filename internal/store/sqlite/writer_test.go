package sqlite

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"keygate/internal/keys"
)

func setting(name string) keys.Mutation {
	return keys.Mutation{Settings: []keys.Setting{{Name: name}}}
}

// hold keeps the writer busy until release is called.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	busy, free := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.writer.submit(context.Background(), func(*tx) error {
			close(busy)
			<-free
			return nil
		})
	}()
	<-busy
	return func() {
		close(free)
		if err := <-done; err != nil {
			t.Errorf("the change that held the writer: %v", err)
		}
	}
}

// TestCancelledWhileWaiting: who waits for the writer may leave at any time,
// and what was to be written never is.
func TestCancelledWhileWaiting(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	release := hold(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Apply(ctx, setting("never")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Apply: %v", err)
	}
	if err := s.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ping of a writer that is stuck: %v", err)
	}
	if took := time.Since(start); took > commitGrace/2 {
		t.Errorf("returned after %v", took)
	}
	release()
	if _, err := s.Apply(t.Context(), setting("after")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Setting(t.Context(), "never"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("what was withdrawn: %v", err)
	}
}

// TestDiskThatHangs: a caller whose change is being written when its context
// ends waits for the outcome, but not forever.
func TestDiskThatHangs(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	free := make(chan struct{})
	hang := func(*tx) error { <-free; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	err := s.writer.submit(ctx, hang)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not known whether") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took < commitGrace || took > commitGrace+5*time.Second {
		t.Errorf("returned after %v", took)
	}
	close(free)
}

func TestCloseWhileOthersWait(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	release := hold(t, s)
	waiting := make(chan error)
	go func() {
		_, err := s.Apply(context.Background(), setting("late"))
		waiting <- err
	}()
	time.Sleep(10 * time.Millisecond)
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("who waited: %v", err)
	}
	release() // the change in progress is finished, and acknowledged
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	_, late := s.Apply(t.Context(), setting("late"))
	for what, err := range map[string]error{
		"Apply": late, "Ping": s.Ping(t.Context()),
		"Setting": func() error { _, err := s.Setting(t.Context(), "x"); return err }(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s of a closed store: %v", what, err)
		}
	}
}

// together applies mutations at once. They wait for the writer when it gets
// free, so that they share a transaction; on a very busy machine perhaps not.
func together(t *testing.T, s *Store, all ...keys.Mutation) []error {
	t.Helper()
	release := hold(t, s)
	outcomes := make([]error, len(all))
	var waiting sync.WaitGroup
	for i, m := range all {
		waiting.Go(func() { _, outcomes[i] = s.Apply(context.Background(), m) })
	}
	time.Sleep(50 * time.Millisecond)
	release()
	waiting.Wait()
	return outcomes
}

// TestBatch: changes that share a transaction each get their own answer, and
// one that is refused takes nothing from the others.
func TestBatch(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	half := setting("half")
	half.Keys = []keys.Key{{ID: "key_1", Account: "acc_nobody"}}
	outcomes := together(t, s, setting("a"), half, setting("a"), setting("b"))
	var exists *keys.ExistsError
	if (outcomes[0] == nil) == (outcomes[2] == nil) || !errors.As(errors.Join(outcomes[0], outcomes[2]), &exists) {
		t.Errorf("the same setting twice: %v and %v", outcomes[0], outcomes[2])
	}
	if !errors.Is(outcomes[1], keys.ErrNotFound) || outcomes[3] != nil {
		t.Errorf("the others: %v and %v", outcomes[1], outcomes[3])
	}
	batch, err := s.Changes(t.Context(), 0, 0)
	if err != nil || len(batch.Changes) != 2 || batch.Changes[0].Seq != 1 || batch.Changes[1].Seq != 2 {
		t.Errorf("the feed has %+v, %v; want two entries without a hole", batch, err)
	}
}

// TestFullDisk: a change that does not fit is refused whole, others that share
// its transaction are made, reads go on, and so do writes once there is space.
func TestFullDisk(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	pages := func(query string) {
		t.Helper()
		if err := s.writer.submit(t.Context(), func(x *tx) error { return x.read(query, nil, new(int)) }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Apply(t.Context(), keys.Mutation{Accounts: []keys.Account{{ID: "acc_1"}}}); err != nil {
		t.Fatal(err)
	}
	pages("PRAGMA max_page_count = 1") // SQLite makes that the present size
	large := keys.Mutation{Settings: []keys.Setting{{Name: "large", Value: strings.Repeat("x", 1<<20)}}, Audit: []keys.AuditEntry{{ID: "aud_1"}}}
	end, err := s.Changes(t.Context(), keys.FeedEnd, 0)
	if err != nil {
		t.Fatal(err)
	}

	_, err = s.Apply(t.Context(), large)
	if err == nil || !strings.Contains(err.Error(), s.file+": the disk is full") || !strings.Contains(err.Error(), "free some space") {
		t.Errorf("Apply on a full disk: %v", err)
	}
	outcomes := together(t, s, setting("a"), large, setting("b"))
	if outcomes[0] != nil || outcomes[1] == nil || outcomes[2] != nil {
		t.Errorf("changes made together: %v", outcomes)
	}
	if _, err := s.Setting(t.Context(), "large"); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("the change that did not fit: %v", err)
	}
	if log, err := s.AuditLog(t.Context(), keys.AuditFilter{}, keys.Page{Limit: 5}); err != nil || len(log.Entries) != 0 {
		t.Errorf("its audit entry: %v, %v", log, err)
	}
	if batch, err := s.Changes(t.Context(), end.Next, 0); err != nil || len(batch.Changes) != 2 {
		t.Errorf("its change entry: %+v, %v", batch, err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping on a full disk, from which requests are still decided: %v", err)
	}
	pages("PRAGMA max_page_count = 100000")
	if _, err := s.Apply(t.Context(), large); err != nil {
		t.Errorf("once there is space: %v", err)
	}
}

// TestAuditIsAppendOnly: not even the writer's connection changes the log.
func TestAuditIsAppendOnly(t *testing.T) {
	s := openStore(t, Options{Dir: t.TempDir()})
	if _, err := s.Apply(t.Context(), keys.Mutation{Audit: []keys.AuditEntry{{ID: "aud_1", Action: "x"}}}); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"UPDATE audit SET action='y'", "DELETE FROM audit", "REPLACE INTO audit SELECT * FROM audit"} {
		err := s.writer.submit(t.Context(), func(x *tx) error { return x.exec(statement) })
		if err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	if _, err := s.readers.ExecContext(t.Context(), "DELETE FROM keys"); err == nil {
		t.Error("a reader's connection writes")
	}
}
