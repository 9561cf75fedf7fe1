package admin

import (
	"regexp"
	"slices"
	"strings"
)

// Somebody may take a secret for an id, an imported one of any form too: what is
// logged of a path has the form of what stands there otherwise.
var (
	idForm   = regexp.MustCompile(`^[a-z]{3}_[0-9a-f]{32}$`)
	slugForm = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)
)

// shortestKey is less than any key has characters.
const shortestKey = 16

// loggable reports whether no segment of a path can be a key.
func loggable(path string) bool {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		slug := i > 0 && slices.Contains([]string{"organizations", "spaces"}, segments[i-1]) && slugForm.MatchString(s)
		if len(s) >= shortestKey && !slug && !idForm.MatchString(s) {
			return false
		}
	}
	return true
}
