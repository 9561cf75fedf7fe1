package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// An outage with few requests, and a Redis that came back empty, were once in no
// line of the log.
func TestOutagesAreLogged(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	now, age := time.Unix(0, 0), 100*time.Millisecond
	var away error
	lost := false
	ping := func(context.Context) error { return away }
	o := newOutages("redis.example:6379", ping, func() time.Duration { return age },
		func(context.Context) (bool, error) { return lost, away }, zap.New(core), prometheus.NewRegistry())
	o.now = func() time.Time { return now }
	look := func(after time.Duration) { now = now.Add(after); o.look(t.Context()) }
	wants := func(level zapcore.Level, fields ...string) {
		t.Helper()
		lines := logs.TakeAll()
		if len(fields) == 0 {
			if len(lines) != 0 {
				t.Errorf("%+v", lines)
			}
			return
		}
		if len(lines) != 1 || lines[0].Level != level {
			t.Fatalf("%+v, want one line of level %s", lines, level)
		}
		for _, name := range fields {
			if lines[0].ContextMap()[name] == nil {
				t.Errorf("no field %s in %+v", name, lines[0])
			}
		}
	}

	look(time.Second)
	wants(zap.InfoLevel)
	age, away = 2*time.Second, errors.New("connection refused")
	look(time.Second)
	wants(zap.WarnLevel, "redis", "silent_for", "error")
	look(29 * time.Second)
	wants(zap.InfoLevel)
	age = 32 * time.Second
	look(time.Second)
	wants(zap.WarnLevel, "redis")
	age, away = 0, nil
	look(time.Second)
	if lines := logs.FilterField(zap.Duration("lasted", 33*time.Second)); lines.Len() != 1 {
		t.Errorf("%+v", logs.All())
	}
	wants(zap.InfoLevel, "redis", "lasted")

	lost = true
	look(emptiedLook)
	wants(zap.ErrorLevel, "redis")
	look(emptiedLook)
	wants(zap.InfoLevel)
	if !o.emptied.Load() {
		t.Error("not remembered")
	}
	lost = false
	look(emptiedLook)
	wants(zap.InfoLevel, "redis")
}
