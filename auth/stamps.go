package auth

import (
	"hash/maphash"
	"sync/atomic"

	"keygate/internal/keys"
)

// stamps tell whether something remembered is still true, without a lock or an
// index from ids to cache entries. Each id falls into a bucket; a change of the
// id raises the bucket's stamp, and whatever was remembered under the old stamp
// is dead. Ids that share a bucket cost each other a fetch now and then.
//
// The epoch guards what is being fetched while a change arrives: it is raised
// before the bucket, so a fetch that saw the old epoch at its start and still
// sees it after reading the bucket's stamp cannot have missed the change.
type stamps struct {
	seed    maphash.Seed
	epoch   atomic.Uint64
	created atomic.Uint64 // raised by each new key: drops remembered unknown keys
	flushed atomic.Uint64 // raised to drop everything
	buckets [1 << 14]atomic.Uint64
}

func newStamps() *stamps { return &stamps{seed: maphash.MakeSeed()} }

func (s *stamps) bucket(id string) *atomic.Uint64 {
	return &s.buckets[maphash.String(s.seed, id)%uint64(len(s.buckets))]
}

func (s *stamps) changed(c keys.Change) {
	s.epoch.Add(1)
	if c.Kind == keys.KindKey && c.Version == 1 {
		s.created.Add(1)
	}
	s.bucket(c.ID).Add(1)
	// Spaces are remembered with their organization.
	if c.Kind == keys.KindSpace {
		s.bucket(c.Organization).Add(1)
	}
}

func (s *stamps) flush() {
	s.epoch.Add(1)
	s.created.Add(1)
	s.flushed.Add(1)
}

// stamp is the state of up to three ids at one instant.
type stamp struct {
	flushed uint64
	of      [3]*atomic.Uint64
	at      [3]uint64
}

func (s *stamps) take(ids ...string) stamp {
	t := stamp{flushed: s.flushed.Load()}
	for i, id := range ids {
		t.of[i] = s.bucket(id)
		t.at[i] = t.of[i].Load()
	}
	return t
}

// holds reports whether nothing of what the stamp stands for changed since.
func (s *stamps) holds(t *stamp) bool {
	for i, b := range t.of {
		if b != nil && b.Load() != t.at[i] {
			return false
		}
	}
	return t.flushed == s.flushed.Load()
}
