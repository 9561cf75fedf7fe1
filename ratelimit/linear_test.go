package ratelimit_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"keygate/ratelimit"
	"keygate/ratelimit/memory"
)

// What a ledger does in one moment, in which no charge ends: units are spent,
// leased, reported and given back.
type (
	budget struct {
		quota    int64
		spent    int64
		sessions map[string]leased
	}
	leased struct{ granted, acked int64 }
	answer struct {
		status         ratelimit.Status
		taken, granted int64
		remaining      int64
	}
)

func (b budget) left() int64 {
	left := b.quota - b.spent
	for _, s := range b.sessions {
		left -= s.granted - s.acked
	}
	return left
}

// step is the ledger's contract, written down as plainly as it goes.
func (b budget) step(a ratelimit.Ask, got answer) (bool, budget) {
	next := budget{b.quota, b.spent, maps.Clone(b.sessions)}
	s, known := next.sessions[a.Session]
	if a.Session != "" && !known && (a.Spent > 0 || a.Seen > 0 || a.Release) {
		return got.status == ratelimit.Expired && got.taken == 0, next
	}
	if known {
		d := max(0, a.Spent-s.acked)
		s.acked, next.spent = s.acked+d, next.spent+d
		next.sessions[a.Session] = s
	}
	if a.Release {
		delete(next.sessions, a.Session)
		return got.status == ratelimit.Granted && got.remaining == next.left(), next
	}
	taken := min(a.Take, max(0, next.left()))
	taken -= taken % a.Cost
	next.spent += taken
	want := int64(0)
	if left := next.left(); a.Session != "" && left >= a.Cost {
		active, quota := int64(1), a.Limits[0].Quota
		for id, other := range next.sessions {
			if id != a.Session && other.granted > other.acked {
				active++
			}
		}
		want = min(a.Want, max(a.Cost, quota/20), max(a.Cost, left/active, min(left, quota/100)))
	}
	if s.granted += want; want > 0 {
		next.sessions[a.Session] = s
	}
	status := ratelimit.Granted
	if taken == 0 && want == 0 && a.Take+a.Want > 0 {
		status = ratelimit.Denied
	}
	return got == answer{status, taken, s.granted, next.left()}, next
}

var ledgerModel = porcupine.Model{
	Init: func() any { return budget{quota: linearQuota, sessions: map[string]leased{}} },
	Step: func(state, input, output any) (bool, any) {
		return state.(budget).step(input.(ratelimit.Ask), output.(answer))
	},
	Equal: func(a, b any) bool {
		x, y := a.(budget), b.(budget)
		return x.spent == y.spent && maps.Equal(x.sessions, y.sessions)
	},
	DescribeOperation: func(input, output any) string {
		a := input.(ratelimit.Ask)
		return fmt.Sprintf("%s spent %d take %d want %d cost %d release %t -> %+v", a.Session, a.Spent, a.Take, a.Want, a.Cost, a.Release, output)
	},
}

const linearQuota = 400

// TestLinearizable: what concurrent askers were answered is what they would have
// been answered one after the other, in some order that agrees with when each
// asked and was answered.
func TestLinearizable(t *testing.T) {
	rounds := 40
	if full {
		rounds = 400
	}
	for round := range rounds {
		c := newClock()
		ledger := memory.New(memory.Options{Now: c.now})
		began := time.Now()
		var mu sync.Mutex
		var history []porcupine.Operation
		var all sync.WaitGroup
		for client := range 6 {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client)))
				session, granted, spent := fmt.Sprint("s", client), int64(0), int64(0)
				grants := make([]ratelimit.Grant, 1)
				for n := range 12 {
					a := *asking(minute(linearQuota))
					switch a.Cost = 1 + r.Int64N(3); r.IntN(5) {
					case 0:
						a.Take = a.Cost * (1 + r.Int64N(8))
					case 1:
						a.Session, a.Spent, a.Seen, a.Release = session, spent, granted, true
					default:
						spent += r.Int64N(granted - spent + 1)
						a.Session, a.Spent, a.Seen = session, spent, granted
						a.Want, a.Take = r.Int64N(12), a.Cost*r.Int64N(3)
					}
					called := time.Since(began)
					runtime.Gosched() // so that calls overlap on few cores as well
					if err := ledger.Lease(context.Background(), []ratelimit.Ask{a}, grants); err != nil {
						t.Error(err)
						return
					}
					runtime.Gosched()
					g := grants[0]
					op := porcupine.Operation{
						ClientId: client, Input: a, Call: int64(called),
						Output: answer{g.Status, g.Taken, g.Leased, g.Limits[0].Remaining}, Return: int64(time.Since(began)),
					}
					if a.Release {
						op.Output = answer{status: g.Status, remaining: g.Limits[0].Remaining}
						session, granted, spent = fmt.Sprint("s", client, ".", n), 0, 0
					} else {
						granted = max(granted, g.Leased)
					}
					mu.Lock()
					history = append(history, op)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		switch porcupine.CheckOperationsTimeout(ledgerModel, history, time.Minute) {
		case porcupine.Illegal:
			slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			for _, op := range history {
				t.Logf("%d-%d: %s", op.Call, op.Return, ledgerModel.DescribeOperation(op.Input, op.Output))
			}
			t.Fatalf("round %d cannot have happened one after the other", round)
		case porcupine.Unknown:
			t.Fatal("it takes too long to find out")
		}
	}
}
