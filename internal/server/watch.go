package server

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

const (
	// settleFor is how long a directory is quiet before its file is read:
	// editors and copies write in several steps.
	settleFor = 250 * time.Millisecond
	// settleAtMost bounds the wait for quiet in a directory that is written to
	// all the time.
	settleAtMost = 2 * time.Second
	// lookEvery is how often the file is looked at without any event, which
	// network file systems do not deliver, nor links that lead elsewhere, nor the
	// files that it names.
	lookEvery = 5 * time.Second
)

// policyWatch tells when the policy file may have changed. It watches the
// directory, because whoever replaces a file by renaming another, or swaps a
// link as Kubernetes does for a ConfigMap, changes nothing about the file that
// was open.
type policyWatch struct {
	// file is empty where the policy is no file, and may name some all the same.
	file string
	// changed compares the file with what was read last.
	changed func() bool
	// tell receives each change.
	tell chan<- struct{}
	log  *zap.Logger

	lookEvery time.Duration
	watcher   *fsnotify.Watcher // nil while there is none
	failing   bool              // which was logged
}

// run watches until ctx ends.
func (w *policyWatch) run(ctx context.Context) {
	defer w.drop()
	look := time.NewTicker(w.lookEvery)
	defer look.Stop()
	var unrest time.Time        // since when there are events that were not looked into; zero: there are none
	settled := time.NewTimer(0) // the first look is for what changed during the start
	defer settled.Stop()
	stir := func() {
		if unrest.IsZero() {
			unrest = time.Now()
		}
		settled.Reset(min(settleFor, settleAtMost-time.Since(unrest)))
	}
	for {
		var events <-chan fsnotify.Event
		var failures <-chan error
		if w.watcher != nil {
			events, failures = w.watcher.Events, w.watcher.Errors
		}
		select {
		case <-ctx.Done():
			return
		case <-events:
			stir()
		case err := <-failures:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.drop()
				w.report(err)
			}
			stir()
		case <-look.C:
			w.open()
			if w.changed() {
				stir() // it may be half written
			}
		case <-settled.C:
			unrest = time.Time{}
			w.open()
			if !w.changed() {
				continue
			}
			select {
			case w.tell <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// open watches the directory; one that is watched already is left as it is, one
// that took its place is watched instead.
func (w *policyWatch) open() {
	if w.file == "" {
		return
	}
	var err error
	if w.watcher == nil {
		w.watcher, err = fsnotify.NewWatcher()
	}
	if err == nil {
		err = w.watcher.Add(filepath.Dir(w.file))
	}
	w.report(err)
}

func (w *policyWatch) drop() {
	if w.watcher != nil {
		_ = w.watcher.Close() // nothing can be lost: the file is looked at anyway
		w.watcher = nil
	}
}

// report logs when watching begins to fail, and when it works again.
func (w *policyWatch) report(err error) {
	switch {
	case err != nil && !w.failing:
		w.log.Warn("the directory of the policy file cannot be watched: "+remedy(err),
			zap.String("directory", filepath.Dir(w.file)), zap.Duration("looked_at_every", w.lookEvery), zap.Error(err))
	case err == nil && w.failing:
		w.log.Info("the directory of the policy file is watched again", zap.String("directory", filepath.Dir(w.file)))
	}
	w.failing = err != nil
}

// remedy says what an operator can do. The errors of inotify_init(2) and
// inotify_add_watch(2) sound like something else.
func remedy(err error) string {
	const meanwhile = "; meanwhile the file is looked at every few seconds, and SIGHUP reloads it at once"
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the system's watches are used up, raise fs.inotify.max_user_watches" + meanwhile
	case errors.Is(err, syscall.EMFILE):
		return "the system's watchers or this process's files are used up, raise fs.inotify.max_user_instances or ulimit -n" + meanwhile
	case errors.Is(err, syscall.ENOENT), errors.Is(err, fsnotify.ErrNonExistentWatch):
		return "bring it back" + meanwhile
	}
	return "watching is tried again" + meanwhile
}
