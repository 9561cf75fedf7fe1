package cli

import (
	"context"
	"strings"

	"keygate/internal/admin"
)

// names shows organizations, spaces, accounts and keys in tables by what people
// call them. What cannot be found out with a few requests stays an id.
type names struct {
	ctx           context.Context
	c             *admin.Client
	known         map[string]string // by id
	requests      map[string]int    // by prefix of the ids
	organizations int               // that were asked for
}

// mostNames bounds the requests that one table may cost for names of one kind.
const mostNames = 8

func newNames(ctx context.Context, c *admin.Client) *names {
	return &names{ctx: ctx, c: c, known: make(map[string]string), requests: make(map[string]int)}
}

func (n *names) of(id string, find func() string) string {
	if name, ok := n.known[id]; ok || id == "" {
		return name
	}
	kind, _, _ := strings.Cut(id, "_")
	if n.requests[kind] == mostNames {
		return id
	}
	n.requests[kind]++
	name := find()
	if name == "" {
		name = id // it is gone, or not for the caller to see
	}
	n.known[id] = name
	return name
}

// organization asks for one, and from the second on for all that fit a page.
func (n *names) organization(id string) string {
	return n.of(id, func() string {
		if n.organizations++; n.organizations != 2 {
			return ask(n.ctx, n.c.GetOrganization, id, func(o admin.Organization) string { return o.Slug })
		}
		page, err := n.c.ListOrganizations(n.ctx, admin.ListOptions{Limit: 200})
		if err != nil {
			return ""
		}
		for _, o := range page.Items {
			n.known[o.ID] = o.Slug
		}
		return n.known[id]
	})
}

// space asks for all of the organization that fit a page.
func (n *names) space(organization, id string) string {
	return n.of(id, func() string {
		page, err := n.c.ListSpaces(n.ctx, admin.ListOptions{Organization: organization, Limit: 200})
		if err == nil {
			for _, s := range page.Items {
				n.known[s.ID] = s.Slug
			}
		}
		if n.known[id] == "" { // there are more, or the caller is restricted to this one
			s, _ := n.c.GetSpace(n.ctx, organization, id)
			return s.Slug
		}
		return n.known[id]
	})
}

func (n *names) account(id string) string {
	return n.of(id, func() string {
		return ask(n.ctx, n.c.GetAccount, id, func(x admin.Account) string { return x.Name })
	})
}

// owner is an account in a list of keys. It asks for all accounts of the organization
// that fit a page, and for one by itself where it is not among them: a guest's, or one
// of many.
func (n *names) owner(organization, id string) string {
	return n.of(id, func() string {
		page, err := n.c.ListAccounts(n.ctx, admin.ListOptions{Organization: organization, Limit: 200})
		if err == nil {
			for _, x := range page.Items {
				n.known[x.ID] = x.Name
			}
		}
		if n.known[id] == "" {
			return ask(n.ctx, n.c.GetAccount, id, func(x admin.Account) string { return x.Name })
		}
		return n.known[id]
	})
}

func (n *names) key(id string) string {
	return n.of(id, func() string {
		return ask(n.ctx, n.c.GetKey, id, func(k admin.Key) string { return k.Name })
	})
}

// both is a name with the id behind it: names of accounts and keys are not unique.
func both(name, id string) string {
	if name == "" || name == id {
		return id
	}
	return name + " (" + id + ")"
}
