package keys

import "slices"

// Set is a set of permissions of one catalogue, a bit for each. The nil set is
// empty.
type Set []uint64

// holdsAll reports whether the set holds all of another.
func (s Set) holdsAll(t Set) bool {
	for i, bits := range t {
		if i >= len(s) && bits != 0 || i < len(s) && bits&^s[i] != 0 {
			return false
		}
	}
	return true
}

// Has reports whether the set holds the permission at index i.
func (s Set) Has(i int) bool { return i>>6 < len(s) && s[i>>6]&(1<<(i&63)) != 0 }

// And returns what both sets hold.
func (s Set) And(t Set) Set {
	out := make(Set, min(len(s), len(t)))
	for i := range out {
		out[i] = s[i] & t[i]
	}
	return out
}

// Or returns what either set holds.
func (s Set) Or(t Set) Set {
	if len(s) < len(t) {
		s, t = t, s
	}
	out := slices.Clone(s)
	out.or(t)
	return out
}

func (s Set) add(i int) { s[i>>6] |= 1 << (i & 63) }

func (s Set) remove(i int) { s[i>>6] &^= 1 << (i & 63) }

func (s Set) or(t Set) {
	for i := range t {
		s[i] |= t[i]
	}
}
