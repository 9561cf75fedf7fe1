package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	redisstore "keygate/internal/store/redis"
	redisledger "keygate/ratelimit/redis"
)

const (
	// markTimeoutAll bounds one time of looking at all of the ledger's markers:
	// some ten milliseconds of Redis's time.
	markTimeoutAll = 10 * time.Second
	// markAgain lies between two tries to look at them.
	markAgain = time.Second
)

// losses has the ledger in Redis notice what a restart, a failover or an emptied
// Redis may have lost of what was spent, also where nobody asks about it.
type losses struct {
	store  *redisstore.Store
	ledger *redisledger.Ledger
	log    *zap.Logger
	// turned says that Redis is not what it was, true that it was emptied; of 1,
	// an emptied one is not forgotten for another.
	turned chan bool
	turns  *prometheus.CounterVec
	// suspects are for what Redis itself shows no sign of.
	suspects *suspects
}

func newLosses(log *zap.Logger, r prometheus.Registerer) *losses {
	l := &losses{
		log: log, turned: make(chan bool, 1), suspects: newSuspects(),
		turns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "keygate_redis_turns_total", Help: "How often Redis was restarted or failed over (turned), or found without its data (emptied).",
		}, []string{"kind"}),
	}
	r.MustRegister(l.turns)
	for _, kind := range []string{"turned", "emptied"} {
		l.turns.WithLabelValues(kind)
	}
	return l
}

// note is told by the store; it does not block.
func (l *losses) note(emptied bool) {
	if emptied {
		l.turns.WithLabelValues("emptied").Inc()
	} else {
		l.turns.WithLabelValues("turned").Inc()
	}
	for {
		select {
		case l.turned <- emptied:
			return
		default:
		}
		select { // take back what nobody has looked at yet, to send the worse of both
		case before := <-l.turned:
			emptied = emptied || before
		default:
		}
	}
}

// prepare makes the markers before this instance is ready. At the first use of a
// Redis, and only then, those that are missing were not lost.
func (l *losses) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, markTimeoutAll)
	defer cancel()
	prepared, err := l.store.LimitsPrepared(ctx)
	if err != nil {
		return err
	}
	if prepared {
		return l.ledger.Mark(ctx, redisledger.Known)
	}
	if err := l.ledger.Mark(ctx, redisledger.First); err != nil {
		return err
	}
	return l.store.PrepareLimits(ctx)
}

// follow looks at the markers whenever Redis has turned or something is held to be
// lost, until ctx ends.
func (l *losses) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case emptied := <-l.turned:
			l.mark(ctx, emptied)
		case <-l.suspects.more:
			l.tell(ctx)
		}
	}
}

func (l *losses) mark(ctx context.Context, emptied bool) {
	as := redisledger.Known
	if emptied {
		as = redisledger.Gone
		l.log.Error("Redis has lost its data: sliding limits of strict plans give nothing until what may have been admitted before is past")
	} else {
		l.log.Warn("Redis was restarted or a replica was promoted: limits go on if nothing can be lost, and wait otherwise")
	}
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, markTimeoutAll)
		err := l.ledger.Mark(bounded, as)
		cancel()
		if err == nil {
			return
		}
		l.log.Warn("the markers of the limits could not be looked at; this is tried again", zap.Error(err))
		select {
		case <-ctx.Done():
		case <-time.After(markAgain):
		}
	}
}
