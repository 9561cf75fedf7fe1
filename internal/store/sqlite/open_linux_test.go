package sqlite

import "testing"

// In /proc nobody can make anything, not even root.
func TestDirectoryThatCannotBeMade(t *testing.T) {
	refusesToOpen(t, "/proc/keygate", "choose a directory that user")
}
