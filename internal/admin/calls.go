package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
)

// ListOptions select a page; the zero value is the first, of 50.
type ListOptions struct {
	Limit  int
	Cursor string
	// Organization, an id or slug, is required for spaces and accounts.
	Organization string
	// Name selects keys of exactly this name.
	Name string
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	if o.Limit != 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	set("cursor", o.Cursor)
	set("organization", o.Organization)
	set("name", o.Name)
	return q
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	err := c.call(ctx, http.MethodGet, path, query, nil, &out)
	return out, err
}

func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	err := c.call(ctx, http.MethodPost, path, nil, in, &out)
	return out, err
}

// CreateKey makes a key; the answer is the only one that holds its secret.
func (c *Client) CreateKey(ctx context.Context, in NewKey) (CreatedKey, error) {
	return post[CreatedKey](ctx, c, "/v1/keys", in)
}

// ListKeys lists keys, newest first.
func (c *Client) ListKeys(ctx context.Context, o ListOptions) (Page[Key], error) {
	return get[Page[Key]](ctx, c, "/v1/keys", o.query())
}

// GetKey reads one key.
func (c *Client) GetKey(ctx context.Context, id string) (Key, error) {
	return get[Key](ctx, c, keyPathOf(id), nil)
}

// PauseKey stops a key until it is resumed.
func (c *Client) PauseKey(ctx context.Context, id string) (Key, error) {
	return post[Key](ctx, c, keyPathOf(id)+"/pause", nil)
}

// ResumeKey lets a paused key work again.
func (c *Client) ResumeKey(ctx context.Context, id string) (Key, error) {
	return post[Key](ctx, c, keyPathOf(id)+"/resume", nil)
}

// RevokeKey ends a key for good; its record stays.
func (c *Client) RevokeKey(ctx context.Context, id string) (Key, error) {
	return post[Key](ctx, c, keyPathOf(id)+"/revoke", nil)
}

// DeleteKey removes a key for good.
func (c *Client) DeleteKey(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, keyPathOf(id), nil, nil, nil)
}

// CreateOrganization makes an organization and its account default.
func (c *Client) CreateOrganization(ctx context.Context, in NewOrganization) (Organization, error) {
	return post[Organization](ctx, c, "/v1/organizations", in)
}

// ListOrganizations lists organizations, newest first.
func (c *Client) ListOrganizations(ctx context.Context, o ListOptions) (Page[Organization], error) {
	return get[Page[Organization]](ctx, c, "/v1/organizations", o.query())
}

// GetOrganization reads one organization by id or slug.
func (c *Client) GetOrganization(ctx context.Context, ref string) (Organization, error) {
	return get[Organization](ctx, c, "/v1/organizations/"+segment(ref), nil)
}

// ListReplicas lists the running replicas. There is one page.
func (c *Client) ListReplicas(ctx context.Context, _ ListOptions) (Page[Replica], error) {
	return get[Page[Replica]](ctx, c, "/v1/replicas", nil)
}

// CreateSpace makes a space of an organization.
func (c *Client) CreateSpace(ctx context.Context, in NewSpace) (Space, error) {
	return post[Space](ctx, c, "/v1/spaces", in)
}

// ListSpaces lists the spaces of an organization, newest first.
func (c *Client) ListSpaces(ctx context.Context, o ListOptions) (Page[Space], error) {
	return get[Page[Space]](ctx, c, "/v1/spaces", o.query())
}

// CreateAccount makes an account with one grant.
func (c *Client) CreateAccount(ctx context.Context, in NewAccount) (CreatedAccount, error) {
	return post[CreatedAccount](ctx, c, "/v1/accounts", in)
}

// ListAccounts lists the accounts of an organization, newest first.
func (c *Client) ListAccounts(ctx context.Context, o ListOptions) (Page[Account], error) {
	return get[Page[Account]](ctx, c, "/v1/accounts", o.query())
}

// All reads a list to its end, or until it has most records; 0 is all.
func All[T any](ctx context.Context, o ListOptions, most int, list func(context.Context, ListOptions) (Page[T], error)) ([]T, error) {
	all := []T{}
	for {
		o.Limit = maxPage
		if most > 0 {
			o.Limit = min(maxPage, most-len(all))
		}
		page, err := list(ctx, o)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" || most > 0 && len(all) >= most {
			return all, nil
		}
		if page.Next == o.Cursor {
			return nil, errors.New("the list does not end: the answer repeats its cursor")
		}
		o.Cursor = page.Next
	}
}

const maxPage = 200

func keyPathOf(id string) string { return "/v1/keys/" + segment(id) }

// segment escapes a name for one segment of a path; JoinPath would resolve dots.
func segment(s string) string {
	if s == "." || s == ".." || s == "" {
		return "%20" // no id; the answer is 404
	}
	return url.PathEscape(s)
}
