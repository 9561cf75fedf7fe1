package server

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"

	"keygate/auth"
	"keygate/internal/keys"
	"keygate/ratelimit"
)

// A back end that does not answer is left alone for breakerPause after
// breakerFailures calls failed in a row, over breakerAfter: requests are then
// answered at once rather than after a time-out each, and one of them tries
// again. Many requests wait at the same time, so that a number alone would make
// half a second's outage of every hiccup.
const (
	breakerFailures = 5
	breakerAfter    = 250 * time.Millisecond
	breakerPause    = 500 * time.Millisecond
)

// errOut is what a call gets while its back end is left alone.
var errOut = errors.New("the shared Redis did not answer lately and is tried again shortly")

// guards makes circuit breakers and shows their state.
type guards struct {
	open     *prometheus.GaugeVec
	registry prometheus.Registerer
	log      *zap.Logger
}

func newGuards(r prometheus.Registerer, log *zap.Logger) *guards {
	g := &guards{log: log, registry: r, open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "keygate_breaker_open", Help: "1 while a part of the shared Redis is not asked because it did not answer.",
	}, []string{"part"})}
	r.MustRegister(g.open)
	return g
}

func newBreaker[T any](g *guards, part string) *gobreaker.CircuitBreaker[T] {
	state := g.open.WithLabelValues(part)
	var failing time.Time // since when; the breaker's own lock guards it
	return gobreaker.NewCircuitBreaker[T](gobreaker.Settings{
		Name:    part,
		Timeout: breakerPause,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			if c.ConsecutiveFailures == 1 {
				failing = time.Now()
			}
			return c.ConsecutiveFailures >= breakerFailures && time.Since(failing) >= breakerAfter
		},
		// That a client went away says nothing about the back end, nor that a call
		// was not even sent because too many others wait.
		IsExcluded: func(err error) bool {
			return errors.Is(err, context.Canceled) || errors.Is(err, goredis.ErrPoolTimeout)
		},
		IsSuccessful: func(err error) bool {
			return err == nil || errors.Is(err, keys.ErrNotFound)
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				state.Set(1)
				if from == gobreaker.StateClosed { // and not each time that the one that tries fails
					g.log.Warn("Redis does not answer", zap.String("part", part))
				}
			} else if to == gobreaker.StateClosed {
				state.Set(0)
				g.log.Info("Redis answers again", zap.String("part", part))
			}
		},
	})
}

// through makes a call unless the breaker is open.
func through[T any](b *gobreaker.CircuitBreaker[T], call func() (T, error)) (T, error) {
	v, err := b.Execute(call)
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return v, errOut
	}
	return v, err
}

// guardedLedger leaves a ledger alone that does not answer.
type guardedLedger struct {
	ratelimit.Ledger
	breaker *gobreaker.CircuitBreaker[struct{}]
}

func (g *guards) ledger(l ratelimit.Ledger) ratelimit.Ledger {
	return &guardedLedger{Ledger: l, breaker: newBreaker[struct{}](g, "limits")}
}

func (g *guardedLedger) Lease(ctx context.Context, asks []ratelimit.Ask, grants []ratelimit.Grant) error {
	_, err := through(g.breaker, func() (struct{}, error) { return struct{}{}, g.Ledger.Lease(ctx, asks, grants) })
	return err
}

func (g *guardedLedger) Peek(ctx context.Context, a ratelimit.Ask) (grant ratelimit.Grant, err error) {
	_, err = through(g.breaker, func() (_ struct{}, err error) {
		grant, err = g.Ledger.Peek(ctx, a)
		return struct{}{}, err
	})
	return grant, err
}

// guardedLookups leaves a store alone that does not answer requests' questions.
type guardedLookups struct {
	lookups  auth.Lookups
	keys     *gobreaker.CircuitBreaker[keys.Found]
	spaces   *gobreaker.CircuitBreaker[keys.Space]
	settings *gobreaker.CircuitBreaker[keys.Setting]
}

func (g *guards) lookups(l auth.Lookups) auth.Lookups {
	return &guardedLookups{lookups: l, keys: newBreaker[keys.Found](g, "keys"), spaces: newBreaker[keys.Space](g, "spaces"), settings: newBreaker[keys.Setting](g, "settings")}
}

func (g *guardedLookups) Lookup(ctx context.Context, h keys.Hash) (keys.Found, error) {
	return through(g.keys, func() (keys.Found, error) { return g.lookups.Lookup(ctx, h) })
}

func (g *guardedLookups) Space(ctx context.Context, organization, ref string) (keys.Space, error) {
	return through(g.spaces, func() (keys.Space, error) { return g.lookups.Space(ctx, organization, ref) })
}

func (g *guardedLookups) Setting(ctx context.Context, name string) (keys.Setting, error) {
	return through(g.settings, func() (keys.Setting, error) { return g.lookups.Setting(ctx, name) })
}
