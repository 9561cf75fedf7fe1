// Package sqlite is the embedded store: one SQLite database in a data directory
// that one process owns. Every change is on the disk before it is acknowledged.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"keygate/internal/keys"
)

// Options say where the store lives.
type Options struct {
	// Dir is the data directory; it is made, for its owner only, if it is missing.
	Dir string
	// Now stamps what no caller does; time.Now if nil.
	Now func() time.Time
	// Readers is the number of connections that read; 4, or the number of
	// processors if that is more.
	Readers int
	// KeepChanges is the least number of change entries kept;
	// DefaultKeepChanges if 0.
	KeepChanges int
}

func (o *Options) validate() error {
	if o.Dir == "" {
		return errors.New("the store needs a data directory")
	}
	if o.Readers < 0 || o.KeepChanges < 0 {
		return fmt.Errorf("%d readers and %d change entries: neither can be negative", o.Readers, o.KeepChanges)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Readers == 0 {
		o.Readers = max(4, runtime.GOMAXPROCS(0))
	}
	if o.KeepChanges == 0 {
		o.KeepChanges = DefaultKeepChanges
	}
	return nil
}

// Store keeps the control plane in control.db.
type Store struct {
	file        string
	identity    os.FileInfo // of file when it was opened
	now         func() time.Time
	keepChanges int64
	mostWalked  int
	lock        *os.File
	writing     *sql.DB // one connection, the writer's
	readers     *sql.DB
	lookup      *sql.Stmt
	writer      *writer
	bell        *bell
	damage      atomic.Pointer[error] // the first sign of it
	closing     chan struct{}
	closeOnce   sync.Once
	closeErr    error
}

var _ keys.Store = (*Store)(nil)

// Open locks the data directory, finishes a restore that was interrupted, brings
// the database to this version's schema and probes it. The error is one line for
// the operator: a *LockedError if another process has the directory, a
// *SchemaError after a downgrade.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, unusable(o.Dir, err)
	}
	lock, err := lockDirectory(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := finishRestore(o.Dir); err != nil {
		return nil, errors.Join(unusable(o.Dir, err), lock.Close())
	}
	s := &Store{
		file: filepath.Join(o.Dir, databaseFile), now: o.Now, keepChanges: int64(o.KeepChanges), mostWalked: mostWalked, lock: lock,
		bell: newBell(), closing: make(chan struct{}),
	}
	if err := s.open(ctx, o.Readers); err != nil {
		return nil, errors.Join(s.explain(err), s.release())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, readers int) error {
	fresh, err := createFile(s.file)
	if err != nil {
		return unusable(filepath.Dir(s.file), err)
	}
	if s.identity, err = os.Stat(s.file); err != nil {
		return unusable(filepath.Dir(s.file), err)
	}
	if s.writing, err = connect(s.file, 1, writerPragmas); err != nil {
		return err
	}
	if err := s.claim(ctx, fresh); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	if s.readers, err = connect(s.file, readers, readerPragmas); err != nil {
		return err
	}
	if s.lookup, err = s.readers.PrepareContext(ctx, lookupQuery); err != nil {
		return err
	}
	conn, err := s.writing.Conn(ctx)
	if err != nil {
		return err
	}
	s.writer = startWriter(conn, s.closing, s.bell.ring)
	return nil
}

// Ping fails when the store cannot serve: it is closed, its file was removed or
// replaced, damage has shown, nothing can be read, or the writer does not get
// its turn before the context ends. It writes nothing, so a disk that is merely
// full goes unnoticed: requests can still be decided then, and Apply says what
// is wrong.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.damage.Load(); err != nil {
		return *err
	}
	info, err := os.Stat(s.file)
	if err != nil || !os.SameFile(info, s.identity) {
		return fmt.Errorf("%s: the file was removed or replaced while keygate runs, and what is written now is lost: stop keygate and restore the file", s.file)
	}
	if err := s.readers.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM secrets LIMIT 1)`).Scan(new(int)); err != nil {
		return s.explain(err)
	}
	return s.explain(s.writer.submit(ctx, func(*tx) error { return nil }))
}

// Close waits for the change in progress, refuses those that wait, and lets go
// of the data directory. A second call does nothing.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.release() })
	return s.closeErr
}

// release undoes as much of Open as was done. Readers go first, so that the
// writer's end is the last and moves the log into the database.
func (s *Store) release() error {
	close(s.closing)
	var errs []error
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	if s.writing != nil {
		errs = append(errs, s.writing.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// explain also remembers damage, which does not heal, for Ping.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-s.closing:
		if !refusal(err) {
			return ErrClosed
		}
	default:
	}
	err = explain(s.file, err)
	if isDamage(err) {
		s.damage.CompareAndSwap(nil, &err)
	}
	return err
}
