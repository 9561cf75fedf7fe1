// Package spelling finds what a name that nobody knows was probably meant to be.
package spelling

import "slices"

// Closest returns the known name that a name is probably a misspelling of, "" if
// there is none.
func Closest(name string, known []string) string {
	best, least := "", 1+min(3, len(name)/3)
	for _, k := range known {
		if d := distance(name, k, least); d < least || d == least && best != "" && k < best {
			best, least = k, d
		}
	}
	return best
}

// distance counts the letters to add, drop, change or swap with a neighbour to
// get from a to b (Damerau-Levenshtein, optimal string alignment). Names that
// differ by more than most are not compared to their end.
func distance(a, b string, most int) int {
	if d := len(a) - len(b); d > most || -d > most {
		return most + 1
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
		if slices.Min(last) > most && slices.Min(before) > most { // a swap goes back two rows
			return most + 1
		}
	}
	return last[len(b)]
}
