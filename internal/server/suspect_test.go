package server

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"keygate/internal/store/redis/redistest"
	"keygate/ratelimit"
	redisledger "keygate/ratelimit/redis"
)

// What was spent is gone, and Redis shows no sign of it: the same process, its
// markers in place. The replica whose lease is not known any more tells, and the
// organization's sliding limits wait for a window and a lease; open plans and other
// organizations go on.
func TestNoticedLossHoldsStrictPlans(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	client := goredis.NewUniversalClient(redisledger.Options(&goredis.UniversalOptions{Addrs: []string{server.Addr()}}))
	defer client.Close()
	ledger := redisledger.New(client)
	if err := ledger.Mark(t.Context(), redisledger.First); err != nil {
		t.Fatal(err)
	}
	loss := newLosses(zap.NewNop(), prometheus.NewRegistry())
	loss.ledger = ledger
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { loss.follow(ctx); close(ended) }()
	defer func() { stop(); <-ended }()
	limiter := ratelimit.NewLimiter(ratelimit.LimiterOptions{Ledger: ledger, Alarm: lossAlarm(zap.NewNop(), loss.suspect)})

	const quota = 1_000_000
	of := func(name string, open bool) *ratelimit.Ask {
		return &ratelimit.Ask{Organization: "org_" + name, Key: "key_" + name, Open: open, Limits: []ratelimit.Limit{{Name: "minute", Holder: "key_" + name, Quota: quota, Per: time.Minute}}}
	}
	decide := func(ask *ratelimit.Ask) error {
		d, err := limiter.Decide(t.Context(), ask, nil)
		if err == nil && !d.Allowed {
			err = fmt.Errorf("refused: %+v", d)
		}
		return err
	}
	for range 200 {
		if err := decide(of("a", false)); err != nil {
			t.Fatal(err)
		}
	}
	lost := client.Keys(t.Context(), "kg:l:*").Val()
	if len(lost) != 1 || client.Del(t.Context(), lost...).Err() != nil {
		t.Fatalf("values %q", lost)
	}
	var held *ratelimit.LostError
	for end := time.Now().Add(10 * time.Second); held == nil; {
		if err := decide(of("a", false)); err != nil && !errors.As(err, &held) {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the limit goes on as if nothing were lost")
		}
	}
	if whole := time.Minute + 2*time.Second; held.RetryAfter > whole || held.RetryAfter < whole-10*time.Second {
		t.Errorf("held for %s", held.RetryAfter)
	}
	if n := limiter.Stats().Forgotten.Load(); n == 0 || n > 200+quota/20 {
		t.Errorf("%d units forgotten", n)
	}
	if err := decide(of("a", true)); err != nil {
		t.Errorf("an open plan: %v", err)
	}
	if err := decide(of("b", false)); err != nil {
		t.Errorf("another organization: %v", err)
	}
}

// Too many places are everything; nothing that was noticed is dropped.
func TestSuspectsAreBounded(t *testing.T) {
	s, at := newSuspects(), time.Unix(1_700_000_000, 0)
	for i := range maxSuspects + 10 {
		s.add(fmt.Sprint("org_", i), at)
		s.add("org_0", at.Add(time.Duration(i)))
	}
	taken := s.take()
	if len(taken) != maxSuspects+1 || taken["org_0"].IsZero() || taken[""].IsZero() {
		t.Errorf("%d places, %s and %s", len(taken), taken["org_0"], taken[""])
	}
	if len(s.take()) != 0 {
		t.Error("they are told twice")
	}
}
