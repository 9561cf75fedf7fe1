package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ListOptions select a page; the zero value is the first, of 50.
type ListOptions struct {
	Limit  int
	Cursor string
	// Organization is an id or slug. Operators must name one for spaces.
	Organization string
	// The others select keys.
	Space, Account, Name, Query, Status string
	UnusedDays, ExpiresDays             int
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	set := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	number := func(name string, value int) {
		if value != 0 {
			q.Set(name, strconv.Itoa(value))
		}
	}
	number("limit", o.Limit)
	set("cursor", o.Cursor)
	set("organization", o.Organization)
	set("space", o.Space)
	set("account", o.Account)
	set("name", o.Name)
	set("q", o.Query)
	set("status", o.Status)
	number("unused_days", o.UnusedDays)
	number("expires_days", o.ExpiresDays)
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

func patch[T any](ctx context.Context, c *Client, path string, query url.Values, in any) (T, error) {
	var out T
	err := c.call(ctx, http.MethodPatch, path, query, in, &out)
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

// EditKey changes a key.
func (c *Client) EditKey(ctx context.Context, id string, in KeyEdit) (Key, error) {
	return patch[Key](ctx, c, keyPathOf(id), nil, in)
}

// RotateKey gives a key another secret, which only this answer holds.
func (c *Client) RotateKey(ctx context.Context, id string, in Rotation) (CreatedKey, error) {
	return post[CreatedKey](ctx, c, keyPathOf(id)+"/rotate", in)
}

// TestKey says whether a key works, and what else is asked.
func (c *Client) TestKey(ctx context.Context, id string, in TestQuestion) (KeyTest, error) {
	return post[KeyTest](ctx, c, keyPathOf(id)+"/test", in)
}

// Explain says what would become of a request.
func (c *Client) Explain(ctx context.Context, in ExplainQuestion) (Explanation, error) {
	return post[Explanation](ctx, c, "/v1/explain", in)
}

// ImportKeys stores keys by their hash; at most 1,000 at once.
func (c *Client) ImportKeys(ctx context.Context, in Import) (ImportReport, error) {
	return post[ImportReport](ctx, c, "/v1/keys/import", in)
}

// ExportKeys lists keys in the form of an import; of the options organization
// and page count.
func (c *Client) ExportKeys(ctx context.Context, o ListOptions) (KeyExport, error) {
	return get[KeyExport](ctx, c, "/v1/keys/export", o.query())
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

// EditOrganization changes an organization.
func (c *Client) EditOrganization(ctx context.Context, ref string, in OrganizationEdit) (Organization, error) {
	return patch[Organization](ctx, c, "/v1/organizations/"+segment(ref), nil, in)
}

// DeleteOrganization removes an organization that has nothing left.
func (c *Client) DeleteOrganization(ctx context.Context, ref string) error {
	return c.call(ctx, http.MethodDelete, "/v1/organizations/"+segment(ref), nil, nil, nil)
}

// GetSpace reads a space of an organization, both by id or slug.
func (c *Client) GetSpace(ctx context.Context, organization, ref string) (Space, error) {
	return get[Space](ctx, c, "/v1/spaces/"+segment(ref), ListOptions{Organization: organization}.query())
}

// EditSpace changes a space.
func (c *Client) EditSpace(ctx context.Context, organization, ref string, in SpaceEdit) (Space, error) {
	return patch[Space](ctx, c, "/v1/spaces/"+segment(ref), ListOptions{Organization: organization}.query(), in)
}

// DeleteSpace removes a space that nothing is restricted to.
func (c *Client) DeleteSpace(ctx context.Context, organization, ref string) error {
	return c.call(ctx, http.MethodDelete, "/v1/spaces/"+segment(ref), ListOptions{Organization: organization}.query(), nil, nil)
}

// GetAccount reads an account with its grants.
func (c *Client) GetAccount(ctx context.Context, id string) (Account, error) {
	return get[Account](ctx, c, accountPathOf(id), nil)
}

// EditAccount changes an account.
func (c *Client) EditAccount(ctx context.Context, id string, in AccountEdit) (Account, error) {
	return patch[Account](ctx, c, accountPathOf(id), nil, in)
}

// DeleteAccount removes an account that owns no keys.
func (c *Client) DeleteAccount(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, accountPathOf(id), nil, nil, nil)
}

// AddGrant gives an account a role or a permission.
func (c *Client) AddGrant(ctx context.Context, account string, in NewGrant) (Grant, error) {
	return post[Grant](ctx, c, accountPathOf(account)+"/grants", in)
}

// RemoveGrant takes a grant away.
func (c *Client) RemoveGrant(ctx context.Context, account, grant string) error {
	return c.call(ctx, http.MethodDelete, accountPathOf(account)+"/grants/"+segment(grant), nil, nil, nil)
}

// AuditOptions select entries of the audit log.
type AuditOptions struct {
	Limit                               int
	Cursor                              string
	Organization, Target, Actor, Action string
	Since, Until                        time.Time
}

func (o AuditOptions) query() url.Values {
	q := ListOptions{Limit: o.Limit, Cursor: o.Cursor, Organization: o.Organization}.query()
	for name, value := range map[string]string{"target": o.Target, "actor": o.Actor, "action": o.Action} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": o.Since, "until": o.Until} {
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return q
}

// ListAudit lists the audit log, newest first.
func (c *Client) ListAudit(ctx context.Context, o AuditOptions) (Page[AuditEntry], error) {
	return get[Page[AuditEntry]](ctx, c, "/v1/audit", o.query())
}

// ListPermissions lists the policy's permissions. There is one page.
func (c *Client) ListPermissions(ctx context.Context, _ ListOptions) (Page[Permission], error) {
	return get[Page[Permission]](ctx, c, "/v1/permissions", nil)
}

// ListRoles lists the policy's roles. There is one page.
func (c *Client) ListRoles(ctx context.Context, _ ListOptions) (Page[Role], error) {
	return get[Page[Role]](ctx, c, "/v1/roles", nil)
}

// ListPlans lists the policy's plans. There is one page.
func (c *Client) ListPlans(ctx context.Context, _ ListOptions) (Page[Plan], error) {
	return get[Page[Plan]](ctx, c, "/v1/plans", nil)
}

// Me says who asks, and what it may do.
func (c *Client) Me(ctx context.Context) (Caller, error) {
	return get[Caller](ctx, c, "/v1/me", nil)
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
func (c *Client) CreateAccount(ctx context.Context, in NewAccount) (Account, error) {
	return post[Account](ctx, c, "/v1/accounts", in)
}

// ListAccounts lists the accounts of an organization, newest first.
func (c *Client) ListAccounts(ctx context.Context, o ListOptions) (Page[Account], error) {
	return get[Page[Account]](ctx, c, "/v1/accounts", o.query())
}

// All reads a list to its end, or until it has most records; 0 is all.
func All[T any](ctx context.Context, o ListOptions, most int, list func(context.Context, ListOptions) (Page[T], error)) ([]T, error) {
	all := []T{}
	o.Limit = most
	err := Each(ctx, o, list, func(item T) error {
		all = append(all, item)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Each reads a list page by page, to its end or until it had o.Limit records; 0
// is all. An error of each ends it.
func Each[T any](ctx context.Context, o ListOptions, list func(context.Context, ListOptions) (Page[T], error), each func(T) error) error {
	for most, n := o.Limit, 0; ; {
		o.Limit = maxPage
		if most > 0 {
			o.Limit = min(maxPage, most-n)
		}
		page, err := list(ctx, o)
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := each(item); err != nil {
				return err
			}
		}
		if n += len(page.Items); page.Next == "" || most > 0 && n >= most {
			return nil
		}
		if page.Next == o.Cursor {
			return errors.New("the list does not end: the answer repeats its cursor")
		}
		o.Cursor = page.Next
	}
}

const maxPage = 200

func accountPathOf(id string) string { return "/v1/accounts/" + segment(id) }

func keyPathOf(id string) string { return "/v1/keys/" + segment(id) }

// segment escapes a name for one segment of a path; JoinPath would resolve dots.
func segment(s string) string {
	if s == "." || s == ".." || s == "" {
		return "%20" // no id; the answer is 404
	}
	return url.PathEscape(s)
}
