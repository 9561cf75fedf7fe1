package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// arguments wants exactly those named.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return &usageError{cmd, strings.Join(names[len(args):], " and ") + " is missing"}
		case len(args) > len(names):
			return &usageError{cmd, "there is an argument too many: " + quote(args[len(names)])}
		}
		// keys revoke "$ID" with an unset ID must not find a key by no name.
		if i := slices.Index(args, ""); i >= 0 {
			return &usageError{cmd, names[i] + " is empty"}
		}
		return nil
	}
}

// required wants flags to be given.
func required(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			return &usageError{cmd, "--" + name + " is missing"}
		}
	}
	return nil
}

// optional wants those named first, and perhaps the others.
func optional(need []string, more ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		have := min(max(len(args), len(need)), len(need)+len(more))
		return arguments(slices.Concat(need, more)[:have]...)(cmd, args)
	}
}

// flagError says of a flag that is not understood what was probably meant.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && unknown.GetSpecifiedShortnames() == "" {
		message := "there is no flag --" + printable(unknown.GetSpecifiedName())
		if likely := likelyFlag(cmd, unknown.GetSpecifiedName()); likely != "" {
			message += "; did you mean --" + likely + "?"
		}
		return &usageError{cmd, message}
	}
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok && wrong.GetFlag().Value.Type() == "int" {
		return &usageError{cmd, "--" + wrong.GetFlag().Name + ": " + quote(wrong.GetValue()) + " is no whole number"}
	}
	return &usageError{cmd, err.Error()}
}

// likelyFlag is the flag that a name is the beginning or a misspelling of. cobra
// looks for such among commands only.
func likelyFlag(cmd *cobra.Command, name string) string {
	flags := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			flags.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	if likely := flags.SuggestionsFor(name); len(likely) > 0 {
		return likely[0]
	}
	return ""
}

// alias has a command understand another name of a flag, which help does not show.
func alias(cmd *cobra.Command, other, name string) {
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, given string) pflag.NormalizedName {
		if given == other {
			given = name
		}
		return pflag.NormalizedName(given)
	})
}

// trimLists takes the blanks from lists: "orders:read, orders:write" is how people
// write them.
func trimLists(cmd *cobra.Command) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		list, ok := f.Value.(pflag.SliceValue)
		if !ok {
			return
		}
		values := list.GetSlice()
		for i := range values {
			values[i] = strings.TrimSpace(values[i])
		}
		_ = list.Replace(values) // lists of strings take any
	})
}

// emptyMeans marks a flag for which an empty value means something of its own.
const emptyMeans = "empty-means"

// mayBeEmpty says of which flags an empty value has a meaning.
func mayBeEmpty(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		_ = cmd.Flags().SetAnnotation(name, emptyMeans, []string{"true"}) // fails only for a flag that is not there
	}
}

// emptyFlags refuses --organization "$ORG" with an unset ORG: it would quietly
// mean another organization, as --allow-cidr "$NET" would mean all addresses.
func emptyFlags(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		empty, hole := f.Value.Type() == "string" && f.Value.String() == "", false
		if list, ok := f.Value.(pflag.SliceValue); ok {
			empty, hole = len(list.GetSlice()) == 0, slices.Contains(list.GetSlice(), "")
		}
		if hole || empty && f.Annotations[emptyMeans] == nil {
			err = &usageError{cmd, "--" + f.Name + " is empty"}
		}
	})
	return err
}

// given is a pointer to a flag's value if the flag was given, for edits: what was
// not given stays as it is.
func given[T any](cmd *cobra.Command, name string, value *T) *T {
	if cmd.Flags().Changed(name) {
		return value
	}
	return nil
}

// anyChanged wants an edit to change something.
func anyChanged(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			return nil
		}
	}
	return &usageError{cmd, "there is nothing to change: give one of --" + strings.Join(names, ", --")}
}

func limitFlag(cmd *cobra.Command, most *int) {
	cmd.Flags().IntVar(most, "limit", 0, "show at most so many (default 0: all)")
}

func yesFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("yes", false, "do not ask")
}

func (a *app) organizationFlag(cmd *cobra.Command, value *string, usage string) {
	cmd.Flags().StringVar(value, "organization", "", usage)
	a.complete(cmd, "organization", organizationNames)
}
