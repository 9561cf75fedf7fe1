package config

import (
	"fmt"
	"slices"
	"strings"

	"keygate/internal/spelling"
)

// Error lists everything that is wrong with the configuration, so that one
// attempt shows all there is to correct.
type Error struct {
	Problems []Problem // in the order of the file, or of the reference
	// Files are those that a policy names: what is wrong may be in one of them.
	Files []File
}

// Error prints one line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Problem is one mistake.
type Problem struct {
	// File names the policy; empty for an environment variable.
	File string
	// Line and Column count from 1, columns in characters; 0 where the mistake
	// has no place in a file.
	Line, Column int
	// Subject is the variable, or the place in the policy: routes[2].permission.
	Subject string
	// Message says what is wrong with which value and what is allowed; it
	// never holds a secret.
	Message string
}

// String is file:line:column: subject: message, without the parts there are not.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
		}
		b.WriteByte(' ')
	}
	if p.Subject != "" {
		b.WriteString(p.Subject + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// maxShown keeps a value that somebody pasted whole from filling the screen.
const maxShown = 100

// quoted shows a value in a message.
func quoted(s string) string {
	if len(s) > maxShown {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:maxShown], ""))
	}
	return fmt.Sprintf("%q", s)
}

// oneOf lists names as alternatives, quoted and sorted.
func oneOf(names []string) string {
	shown := make([]string, len(names))
	for i, name := range names {
		shown[i] = quoted(name)
	}
	slices.Sort(shown)
	return strings.Join(shown, ", ")
}

// didYouMean ends a message about an unknown name with the known one that it
// is probably a misspelling of, or with nothing.
func didYouMean(name string, known []string) string {
	best := spelling.Closest(name, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
