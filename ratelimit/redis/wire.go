package redis

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	"keygate/ratelimit"
)

// tags is the number of hash tags that organizations are spread over. A power
// of two far below the 16,384 slots of a cluster: few enough to look after each.
const tags = 1024

// A names makes the keys of one organization.
type names struct{ tagged string }

func newNames(organization, key string) names {
	place := ratelimit.Place(organization, key)
	n := tagOf(place)
	var buf [64]byte // place is an id as a rule, so that the string is all that is allocated
	b := append(appendTag(buf[:0], n), ':')
	b = append(b, place...)
	return names{string(append(b, ':'))}
}

func tagOf(place string) uint32 { return crc32.ChecksumIEEE([]byte(place)) % tags }

func appendTag(b []byte, n uint32) []byte {
	return append(strconv.AppendUint(append(b, "{l"...), uint64(n), 10), '}')
}

const (
	holderKind   = "kg:l:"
	inFlightKind = "kg:c:"
	markKind     = "kg:s:"
	markerKind   = "kg:m:"
)

func (n names) holder(id string) string   { return holderKind + n.tagged + id }
func (n names) inFlight(id string) string { return inFlightKind + n.tagged + id }
func (n names) mark(key string) string    { return markKind + n.tagged + key }
func (n names) marker() string            { return markerKind + n.tagged[:strings.IndexByte(n.tagged, ':')] }

// of is where what a limit's holder has spent is stored: requests in flight are
// no charge of windows and stand apart.
func (n names) of(l *ratelimit.Limit) string {
	if l.Concurrent {
		return n.inFlight(l.Holder)
	}
	return n.holder(l.Holder)
}

// isHolder reports whether a name that of made is that of a holder, among limits
// of one kind.
func (n names) isHolder(name, id string) bool { return name[len(holderKind)+len(n.tagged):] == id }

// Modes of the script.
const (
	modeLease   int64 = 0
	modePeek    int64 = 1
	modeRelease int64 = 2
	modeSettle  int64 = 3
)

// asked is the command that puts the ask to the script.
func (s *script) asked(a *ratelimit.Ask, mode int64) []any {
	return s.command(a, mode, 0)
}

// settled is the command that corrects a reservation.
func (s *script) settled(r *ratelimit.Reservation) []any {
	a := r.Ask()
	a.Session, a.Spent, a.Seen, a.Take = r.Session, r.Reserved, r.Seen, r.Actual
	return s.command(&a, modeSettle, r.At.UnixMicro())
}

// command makes one: the number of keys, the keys, the arguments. All numbers
// travel in one argument: one for each would cost the gateway and Redis more than
// they take to read.
func (s *script) command(a *ratelimit.Ask, mode, at int64) []any {
	n := newNames(a.Organization, a.Key)
	args := make([]any, 0, 8+2*len(a.Limits))
	// Names of keys are strings, which is what a cluster client looks for. Of
	// other texts there are pointers: they need no memory to be an any.
	args = append(args, "evalsha", &s.hash, 0, n.mark(a.Key), n.marker())
	const firstHolder = 5
	numbers := make([]byte, 0, 8*(12+7*len(a.Limits)))
	number := func(v int64) { numbers = binary.LittleEndian.AppendUint64(numbers, uint64(v)) }
	flag := func(v bool) {
		if v {
			number(1)
		} else {
			number(0)
		}
	}
	number(mode)
	number(a.Version)
	number(a.Rules)
	number(a.Spent)
	number(a.Seen)
	number(a.Take)
	number(min(a.Want, ratelimit.MaxQuota))
	number(a.Cost)
	number(ratelimit.CallTimeout.Microseconds())
	flag(a.Open)
	flag(a.Stored)
	number(at)
	for k := range a.Limits {
		l := &a.Limits[k]
		i := slices.IndexFunc(args[firstHolder:], func(name any) bool { return n.isHolder(name.(string), l.Holder) })
		if i < 0 {
			i = len(args) - firstHolder
			args = append(args, n.of(l))
		}
		number(int64(i + 1))
		number(l.Quota)
		if l.Concurrent {
			number(-1)
		} else {
			number(l.Per.Microseconds())
		}
		number(l.LeaseTime().Microseconds())
		if l.Per == 0 && !l.Concurrent {
			number(l.Start.UnixMicro())
			number(l.End.UnixMicro())
			number(l.NextEnd.UnixMicro())
		}
	}
	args[2] = len(args) - firstHolder + 2
	args = append(args, numbers, a.Session, a.NextSession)
	for k := range a.Limits {
		args = append(args, &a.Limits[k].Name)
	}
	return args
}

// The numbers of an answer, in the script's order, and those of each limit.
const (
	headNumbers  = 8
	limitNumbers = 4
)

// answer reads what the script said. What it cannot have said is an error: a reply
// comes from outside, and nothing may be admitted on one that makes no sense.
func answer(a *ratelimit.Ask, said []int64, g *ratelimit.Grant) error {
	if len(said) < headNumbers {
		return fmt.Errorf("redis ledger: answer of %d numbers", len(said))
	}
	for i, v := range said {
		if v < 0 || v > ratelimit.MaxVersion {
			return fmt.Errorf("redis ledger: number %d of the answer is %d", i+1, v)
		}
	}
	*g = ratelimit.Grant{
		Status:     ratelimit.Status(said[0]),
		Taken:      said[1],
		Leased:     said[2],
		TTL:        micros(said[3]),
		Now:        time.UnixMicro(said[4]),
		Version:    said[5],
		OthersHold: said[6] != 0,
		Admit:      micros(said[7]),
		Limits:     g.Limits[:0],
	}
	said = said[headNumbers:]
	if g.Status == ratelimit.Stopped || g.Status == ratelimit.Stale {
		return nil
	}
	if len(said) != limitNumbers*len(a.Limits) {
		return fmt.Errorf("redis ledger: answer of %d numbers for %d limits", len(said), len(a.Limits))
	}
	for k := range a.Limits {
		g.Limits = append(g.Limits, ratelimit.State{
			Name: a.Limits[k].Name, Quota: said[0], Remaining: said[1],
			NextUnit: micros(said[2]), RetryAfter: micros(said[3]), Violated: said[3] != 0,
		})
		said = said[limitNumbers:]
	}
	return plausible(a, g)
}

// plausible reports a grant that no ask has. How much a session may hold depends on
// what its limits were before; the [ratelimit.Limiter] knows.
func plausible(a *ratelimit.Ask, g *ratelimit.Grant) error {
	longest := ratelimit.ConcurrentLease
	if !a.Limits[0].Concurrent {
		longest = ratelimit.LeaseTime(ratelimit.MaxWindow)
	}
	if g.Status > ratelimit.Lost || g.Taken > a.Take || g.Taken%a.Cost != 0 || a.Session == "" && g.Leased > 0 || g.TTL > longest || g.Admit > ratelimit.CallTimeout {
		return fmt.Errorf("redis ledger: answer of status %d, %d taken of %d, %d leased for %s, to be admitted within %s", g.Status, g.Taken, a.Take, g.Leased, g.TTL, g.Admit)
	}
	return nil
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
