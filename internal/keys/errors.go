package keys

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Errors that a Store and the Service return. They carry no HTTP status: the
// management API and the proxy each have one place that maps them.
var (
	// ErrNotFound: no record has this id, slug or hash.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the record changed since it was read.
	ErrConflict = errors.New("changed by someone else since it was read")
	// ErrCursor: what was given as the page before is not one.
	ErrCursor = errors.New("not a cursor of this list")
)

// ExistsError says that a value which must be unique is taken.
type ExistsError struct{ Kind, Field, Value string }

func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s with %s %q exists already", e.Kind, e.Field, e.Value)
}

// TooManyKeysError says that an organization's number of keys, its plan's or a
// negotiated one, is used up.
type TooManyKeysError struct {
	Organization string
	Max          int
}

func (e *TooManyKeysError) Error() string {
	number := fmt.Sprintf("%d keys that are active or paused", e.Max)
	if e.Max == 1 {
		number = "1 key that is active or paused"
	}
	return fmt.Sprintf("the organization %s may have %s, and has no room for another: revoke or delete a key that is no longer needed, or ask an operator for more", e.Organization, number)
}

// InUseError says that a record cannot be deleted while others refer to it.
type InUseError struct{ Kind, ID, By string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s %s still has %s: delete them first", e.Kind, e.ID, e.By)
}

// ConflictError says that a change does not fit how things are.
type ConflictError struct{ Detail string }

func (e *ConflictError) Error() string { return e.Detail }

// VersionError says that a record is not of the version that a change was meant
// for.
type VersionError struct {
	Kind, ID string
	// Version is the stored one.
	Version int64
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s %s has changed: its version is %d by now", e.Kind, e.ID, e.Version)
}

// StateError says that a key's state does not allow the change.
type StateError struct{ Operation, Status, Remedy string }

func (e *StateError) Error() string {
	return fmt.Sprintf("a key that is %s cannot be %s: %s", e.Status, e.Operation, e.Remedy)
}

// FieldError is one wrong field of an input.
type FieldError struct {
	// Field is the input's own name for it, such as "allowed_cidrs[2]".
	Field string
	// Value is what was given; empty where it is too long to repeat, or holds
	// what a terminal or a log would not print as it is.
	Value   string
	Problem string
}

// InvalidError lists every wrong field of an input, in the input's order.
type InvalidError struct{ Fields []FieldError }

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Field + ": " + f.Problem
	}
	return strings.Join(parts, "; ")
}

// check collects wrong fields while an input is validated.
type check struct{ fields []FieldError }

func (c *check) add(field, value, problem string, args ...any) {
	unprintable := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if len(value) > 100 || strings.ContainsFunc(value, unprintable) {
		value = ""
	}
	c.fields = append(c.fields, FieldError{Field: field, Value: value, Problem: fmt.Sprintf(problem, args...)})
}

func (c *check) err() error {
	if len(c.fields) == 0 {
		return nil
	}
	return &InvalidError{Fields: c.fields}
}
