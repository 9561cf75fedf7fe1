package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

const (
	// maxBatch bounds how many waiting changes share one transaction, and with
	// it one fsync.
	maxBatch = 64
	// commitGrace is how long a caller whose context ended waits for the outcome
	// of a change that is being written already. A commit takes milliseconds;
	// only a disk that hangs takes longer.
	commitGrace = 2 * time.Second
)

// writer owns the one connection that writes. Changes that wait while another
// is committed are committed together, each within a savepoint of its own.
type writer struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	queue chan *request // unbuffered: what is not taken yet can be withdrawn
	// closing, which is the store's, ends the loop; closed says that it has ended.
	closing   <-chan struct{}
	closed    chan struct{}
	committed func()
}

type request struct {
	apply   func(*tx) error
	outcome chan error // of 1: the writer never waits for a caller
}

// tx is what one change sees of the writing transaction.
type tx struct{ w *writer }

// startWriter serves the queue until closing is closed.
func startWriter(conn *sql.Conn, closing <-chan struct{}, committed func()) *writer {
	w := &writer{
		conn: conn, stmts: make(map[string]*sql.Stmt), queue: make(chan *request),
		closing: closing, closed: make(chan struct{}), committed: committed,
	}
	go w.run()
	return w
}

// submit has apply run in the next transaction and returns once it is durable
// or refused. A context that ends before the change is taken up withdraws it.
func (w *writer) submit(ctx context.Context, apply func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{apply: apply, outcome: make(chan error, 1)}
	select {
	case w.queue <- r:
	case <-w.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.outcome:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(commitGrace)
	defer timer.Stop()
	select {
	case err := <-r.outcome:
		return err
	case <-timer.C:
		return fmt.Errorf("the disk has not answered, so it is not known whether the change was stored: %w", ctx.Err())
	}
}

func (w *writer) run() {
	defer close(w.closed)
	for {
		select {
		case r := <-w.queue:
			w.commit(w.collect(r))
		case <-w.closing:
			return
		}
	}
}

// collect adds to r what waits already; it never waits itself.
func (w *writer) collect(r *request) []*request {
	batch := []*request{r}
	for len(batch) < maxBatch {
		select {
		case r := <-w.queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// commit answers every request of the batch. Where the engine fails, the whole
// transaction is gone, so each is tried alone: one that cannot be stored must
// not take the others with it.
func (w *writer) commit(batch []*request) {
	outcomes, err := w.attempt(batch)
	if err != nil && len(batch) > 1 {
		for _, r := range batch {
			w.commit([]*request{r})
		}
		return
	}
	if err == nil {
		w.committed()
	}
	for i, r := range batch {
		if err != nil {
			r.outcome <- err
		} else {
			r.outcome <- outcomes[i]
		}
	}
}

// attempt runs a batch in one transaction and returns each request's refusal,
// or the failure that undid them all.
func (w *writer) attempt(batch []*request) (outcomes []error, err error) {
	t := &tx{w: w}
	if err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// The engine may have rolled back by itself; then this fails, and is right to.
			_ = t.exec("ROLLBACK")
		}
	}()
	outcomes = make([]error, len(batch))
	stored := 0
	for i, r := range batch {
		if err := t.exec("SAVEPOINT change"); err != nil {
			return nil, err
		}
		outcomes[i] = r.apply(t)
		if outcomes[i] != nil && !refusal(outcomes[i]) {
			return nil, outcomes[i]
		}
		if outcomes[i] != nil {
			if err := t.exec("ROLLBACK TO change"); err != nil {
				return nil, err
			}
		} else {
			stored++
		}
		if err := t.exec("RELEASE change"); err != nil {
			return nil, err
		}
	}
	if stored == 0 { // what was refused needs no fsync
		return outcomes, t.exec("ROLLBACK")
	}
	return outcomes, t.exec("COMMIT")
}

// close waits for the transaction in progress; closing has been closed.
func (w *writer) close() error {
	<-w.closed
	var errs []error
	for _, s := range w.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// statement compiles a query once. Contexts stop at the queue: interrupting one
// change would undo all that share its transaction.
func (t *tx) statement(query string) (*sql.Stmt, error) {
	if s, ok := t.w.stmts[query]; ok {
		return s, nil
	}
	s, err := t.w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	t.w.stmts[query] = s
	return s, nil
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.change(query, args...)
	return err
}

// change is exec where the number of rows or the new row's number matters.
func (t *tx) change(query string, args ...any) (sql.Result, error) {
	s, err := t.statement(query)
	if err != nil {
		return nil, err
	}
	return s.Exec(args...)
}

// read scans one row; no row is sql.ErrNoRows.
func (t *tx) read(query string, args []any, dest ...any) error {
	s, err := t.statement(query)
	if err != nil {
		return err
	}
	return s.QueryRow(args...).Scan(dest...)
}
