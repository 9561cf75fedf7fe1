package server

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"keygate/internal/keys"
)

// What opens the breaker is a back end that gives no answer for a while: not a
// crowd whose calls fail at the same moment, nor what is no failure of it.
func TestBreaker(t *testing.T) {
	down := errors.New("down")
	for _, tt := range []struct {
		name  string
		every time.Duration
		fails []error
		open  bool
	}{
		{"a crowd at one moment", 0, repeat(1000, down), false},
		{"a hiccup", 10 * time.Millisecond, repeat(20, down), false},
		{"no answer for a while", 30 * time.Millisecond, repeat(10, down), true},
		{"few calls, all of which fail", time.Second, repeat(4, down), false},
		{"an answer in between", 100 * time.Millisecond, append(append(repeat(4, down), nil), repeat(4, down)...), false},
		{"unknown keys", 100 * time.Millisecond, repeat(100, keys.ErrNotFound), false},
		{"clients that leave", 100 * time.Millisecond, repeat(100, context.Canceled), false},
		{"too many at once for the connections", 100 * time.Millisecond, repeat(100, goredis.ErrPoolTimeout), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBreaker[int](newGuards(prometheus.NewRegistry(), zap.NewNop()), "part")
				for _, err := range tt.fails {
					_, _ = through(b, func() (int, error) { return 0, err })
					time.Sleep(tt.every)
				}
				_, err := through(b, func() (int, error) { return 0, nil })
				if open := errors.Is(err, errOut); open != tt.open {
					t.Errorf("open: %v, want %v", open, tt.open)
				}
				time.Sleep(breakerPause)
				if _, err := through(b, func() (int, error) { return 1, nil }); err != nil {
					t.Errorf("after the pause: %v", err)
				}
				if _, err := through(b, func() (int, error) { return 1, nil }); err != nil {
					t.Errorf("after an answer: %v", err)
				}
			})
		})
	}
}

func repeat(n int, err error) []error {
	all := make([]error, n)
	for i := range all {
		all[i] = err
	}
	return all
}

// While a back end is away one call tries every half second, and each one that failed
// had a line of its own, for each part, for as long as it lasted.
func TestOutageHasOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		b := newBreaker[int](newGuards(prometheus.NewRegistry(), zap.New(core)), "part")
		for range 600 {
			_, _ = through(b, func() (int, error) { return 0, errors.New("down") })
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(breakerPause)
		if _, err := through(b, func() (int, error) { return 1, nil }); err != nil {
			t.Errorf("after the outage: %v", err)
		}
		var said []string
		for _, line := range logs.All() {
			said = append(said, line.Message)
		}
		if want := []string{"Redis does not answer", "Redis answers again"}; !slices.Equal(said, want) {
			t.Errorf("%d lines of an outage, want %q", len(said), want)
		}
	})
}
