package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"keygate/internal/admin"
	"keygate/internal/keys"
)

// mostNamesakes bounds how many things of one name are listed to choose from.
const mostNamesakes = 10

// findKey takes an id, or a name that only one key has.
func (a *app) findKey(cmd *cobra.Command, c *admin.Client, ref string) (admin.Key, error) {
	if a.isSecret(ref) {
		return admin.Key{}, &usageError{cmd, "that is a key itself, not its id or name; other users of this machine can read it there"}
	}
	var missing error
	if strings.HasPrefix(ref, "key_") {
		k, err := c.GetKey(cmd.Context(), ref)
		if !notFound(err) {
			return k, err
		}
		missing = err // unless somebody named a key so
	}
	found, err := admin.All(cmd.Context(), admin.ListOptions{Name: ref}, mostNamesakes, c.ListKeys)
	switch {
	case err != nil:
		return admin.Key{}, err
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && missing != nil:
		return admin.Key{}, missing
	case len(found) == 0:
		return admin.Key{}, &codeError{exitNotFound, "no key has the id or name " + quote(ref)}
	}
	labels := make([]string, len(found))
	for i, k := range found {
		labels[i] = k.ID + " (" + k.Status + ")"
	}
	return admin.Key{}, &usageError{cmd, fmt.Sprintf("several keys have the name %s, give an id: %s", quote(ref), strings.Join(labels, ", "))}
}

// isSecret notices a key where its id or name belongs, before it is sent in a
// URL, which logs may keep.
func (a *app) isSecret(ref string) bool {
	for _, prefix := range []string{keys.DefaultPrefix, a.lookup("KEYGATE_KEY_PREFIX")} {
		if f, err := keys.NewFormat(prefix); err == nil && f.Valid(ref) {
			return true
		}
	}
	return false
}

// findAccount takes an id, or a name that only one account of the organization has.
func findAccount(cmd *cobra.Command, c *admin.Client, organization, ref string) (admin.Account, error) {
	if strings.HasPrefix(ref, "acc_") {
		found, err := c.GetAccount(cmd.Context(), ref)
		if !notFound(err) {
			return found, err
		}
	}
	all, err := admin.All(cmd.Context(), admin.ListOptions{Organization: organization}, 0, c.ListAccounts)
	if err != nil {
		return admin.Account{}, err
	}
	var found []admin.Account
	var ids []string
	for _, x := range all {
		if x.Name == ref || x.ID == ref {
			found, ids = append(found, x), append(ids, x.ID)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return admin.Account{}, &usageError{cmd, fmt.Sprintf("several accounts have the name %s, give an id: %s", quote(ref), strings.Join(ids, ", "))}
	case organization == "":
		return admin.Account{}, &codeError{exitNotFound, "no account has the id or name " + quote(ref) + "; --organization says in which organization a name is looked for"}
	}
	return admin.Account{}, &codeError{exitNotFound, fmt.Sprintf("no account of the organization %s has the id or name %s", quote(organization), quote(ref))}
}

// accountID is what an account's name stands for. An id is passed on as it is:
// who asks may be allowed to use what it cannot read.
func accountID(cmd *cobra.Command, c *admin.Client, organization, ref string) (string, error) {
	if ref == "" || strings.HasPrefix(ref, "acc_") {
		return ref, nil
	}
	found, err := findAccount(cmd, c, organization, ref)
	return found.ID, err
}

func notFound(err error) bool {
	refused, ok := errors.AsType[*admin.APIError](err)
	return ok && refused.Status == http.StatusNotFound
}

// ask reads one thing for somebody who can do without it.
func ask[T any](ctx context.Context, read func(context.Context, string) (T, error), id string, name func(T) string) string {
	out, err := read(ctx, id)
	if err != nil {
		return ""
	}
	return name(out)
}
