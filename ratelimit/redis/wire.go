package redis

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
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
	n := crc32.ChecksumIEEE([]byte(place)) % tags
	var buf [64]byte // place is an id as a rule, so that the string is all that is allocated
	b := strconv.AppendUint(append(buf[:0], "{l"...), uint64(n), 10)
	b = append(b, "}:"...)
	b = append(b, place...)
	return names{string(append(b, ':'))}
}

const (
	holderKind = "kg:l:"
	markKind   = "kg:s:"
)

func (n names) holder(id string) string { return holderKind + n.tagged + id }
func (n names) mark(key string) string  { return markKind + n.tagged + key }

// isHolder reports whether a name that holder made is that of id.
func (n names) isHolder(name, id string) bool { return name[len(holderKind)+len(n.tagged):] == id }

// Modes of the script.
const (
	modeLease   int64 = 0
	modePeek    int64 = 1
	modeRelease int64 = 2
)

// asked is the command that puts the ask to the script: the number of keys, the
// keys, the arguments. All numbers travel in one argument: one for each would
// cost the gateway and Redis more than they take to read.
func (s *script) asked(a *ratelimit.Ask, mode int64) []any {
	n := newNames(a.Organization, a.Key)
	args := make([]any, 0, 7+2*len(a.Limits))
	// Names of keys are strings, which is what a cluster client looks for. Of
	// other texts there are pointers: they need no memory to be an any.
	args = append(args, "evalsha", &s.hash, 0, n.mark(a.Key))
	const firstHolder = 4
	numbers := make([]byte, 0, 8*(8+4*len(a.Limits)))
	number := func(v int64) { numbers = binary.LittleEndian.AppendUint64(numbers, uint64(v)) }
	number(mode)
	number(a.Version)
	number(a.Spent)
	number(a.Seen)
	number(a.Take)
	number(min(a.Want, ratelimit.MaxQuota))
	number(a.Cost)
	number(ratelimit.CallTimeout.Microseconds())
	for k := range a.Limits {
		l := &a.Limits[k]
		i := slices.IndexFunc(args[firstHolder:], func(name any) bool { return n.isHolder(name.(string), l.Holder) })
		if i < 0 {
			i = len(args) - firstHolder
			args = append(args, n.holder(l.Holder))
		}
		number(int64(i + 1))
		number(l.Quota)
		number(l.Per.Microseconds())
		number(ratelimit.LeaseTime(l.Per).Microseconds())
	}
	args[2] = len(args) - firstHolder + 1
	args = append(args, numbers, a.Session, a.NextSession)
	for k := range a.Limits {
		args = append(args, &a.Limits[k].Name)
	}
	return args
}

// The numbers of an answer, in the script's order, and those of each limit.
const (
	headNumbers  = 7
	limitNumbers = 3
)

// answer reads what the script said. A limit that never fits is waited for as
// long as its window, in case that its quota is raised.
func answer(a *ratelimit.Ask, said []int64, g *ratelimit.Grant) error {
	if len(said) < headNumbers {
		return fmt.Errorf("redis ledger: answer of %d numbers", len(said))
	}
	*g = ratelimit.Grant{
		Status:     ratelimit.Status(said[0]),
		Taken:      said[1],
		Leased:     said[2],
		TTL:        micros(said[3]),
		Now:        time.UnixMicro(said[4]),
		Version:    said[5],
		OthersHold: said[6] != 0,
		Limits:     g.Limits[:0],
	}
	said = said[headNumbers:]
	if g.Status == ratelimit.Stopped {
		return nil
	}
	if len(said) != limitNumbers*len(a.Limits) {
		return fmt.Errorf("redis ledger: answer of %d numbers for %d limits", len(said), len(a.Limits))
	}
	g.Admit = ratelimit.CallTimeout
	for k := range a.Limits {
		l := &a.Limits[k]
		st := ratelimit.State{Name: l.Name, Quota: l.Quota, Remaining: said[0], NextUnit: micros(said[1]), RetryAfter: micros(said[2]), Violated: said[2] != 0}
		if said[2] < 0 {
			st.RetryAfter = l.Per
		}
		g.Limits = append(g.Limits, st)
		said = said[limitNumbers:]
	}
	return nil
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
