package redis

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"keygate/internal/keys"
)

// change is a mutation as the apply script takes it.
type change struct {
	meta    meta
	records []any // five per record: kind, id, version, record, and what else the script needs of it
	err     error
}

type meta struct {
	Token    string   `json:"token"`
	Known    int64    `json:"known"`
	At       int64    `json:"at"`
	Remember int64    `json:"remember"` // ms
	Keep     int64    `json:"keep"`
	Max      *maximum `json:"max,omitempty"`
	Policy   string   `json:"policy,omitempty"`
	Answer   *answer  `json:"answer,omitempty"`
}

// answer is what the change is remembered with.
type answer struct {
	ID     string `json:"id"`
	Record string `json:"record"`
	Ends   int64  `json:"ends"` // ms since 1970
}

type maximum struct {
	Organization string `json:"organization"`
	Max          int    `json:"max"`
}

// add encodes a record; the first error stays.
func (c *change) add(kind, id string, version int64, record, more any) {
	c.records = append(c.records, kind, id, version, c.text(record), more)
}

func (c *change) text(record any) string {
	text, err := json.Marshal(record)
	if err != nil && c.err == nil {
		c.err = err
	}
	return string(text)
}

// encode puts what is deleted first, so that slugs and secrets are free for what
// is written.
func encode(m keys.Mutation) (*change, error) {
	c := &change{meta: meta{At: micros(m.At)}}
	if m.MaxKeys != nil {
		c.meta.Max = &maximum{m.MaxKeys.Organization, m.MaxKeys.Max}
	}
	if r := m.Remember; r != nil {
		record := rememberedRecord{Digest: r.Digest, Answer: r.Answer, Until: micros(r.Until)}
		c.meta.Answer = &answer{ID: r.ID, Record: c.text(record), Ends: r.Until.Add(time.Millisecond - time.Microsecond).UnixMilli()}
	}
	c.addDeletions(m)
	if err := c.addRecords(m); err != nil {
		return nil, err
	}
	for _, e := range m.Audit {
		c.addAudit(e)
	}
	return c, c.err
}

func (c *change) addDeletions(m keys.Mutation) {
	drop := func(kind, id string, version int64) {
		c.records = append(c.records, "delete "+kind, id, version, "", "")
	}
	for _, k := range m.DeleteKeys {
		drop("key", k.ID, k.Version)
	}
	for _, g := range m.DeleteGrants {
		drop("grant", g.ID, 0)
	}
	for _, a := range m.DeleteAccounts {
		drop("account", a.ID, a.Version)
	}
	for _, s := range m.DeleteSpaces {
		drop("space", s.ID, s.Version)
	}
	for _, o := range m.DeleteOrganizations {
		drop("organization", o.ID, o.Version)
	}
}

func (c *change) addRecords(m keys.Mutation) error {
	for _, o := range m.Organizations {
		c.add(string(keys.KindOrganization), o.ID, o.Version, organizationRecord{
			Version: o.Version + 1, Slug: o.Slug, Name: o.Name, Plan: o.Plan, Overrides: string(o.Overrides),
			Created: micros(o.CreatedAt), Updated: micros(o.UpdatedAt),
		}, "")
	}
	for _, s := range m.Spaces {
		c.add(string(keys.KindSpace), s.ID, s.Version, spaceRecord{
			Version: s.Version + 1, Organization: s.Organization, Slug: s.Slug, Name: s.Name,
			Created: micros(s.CreatedAt), Updated: micros(s.UpdatedAt),
		}, "")
	}
	for _, a := range m.Accounts {
		c.add(string(keys.KindAccount), a.ID, a.Version, accountRecord{
			Version: a.Version + 1, Organization: a.Organization, Name: a.Name, Email: a.Email, Subject: a.Subject,
			Created: micros(a.CreatedAt), Updated: micros(a.UpdatedAt),
		}, "")
	}
	for _, g := range m.Grants {
		if g.Space != "" && g.Organization == "" {
			return fmt.Errorf("space %s of grant %s, which names no organization: %w", g.Space, g.ID, keys.ErrNotFound)
		}
		c.add("grant", g.ID, 0, grantRecord{
			Account: g.Account, Organization: g.Organization, Space: g.Space, Role: g.Role, Permission: g.Permission, Created: micros(g.CreatedAt),
		}, "")
	}
	for _, k := range m.Keys {
		if k.Space != "" && k.Organization == "" {
			return fmt.Errorf("space %s of key %s, which has no organization: %w", k.Space, k.ID, keys.ErrNotFound)
		}
		c.addKey(k)
	}
	for _, s := range m.Settings {
		c.add(string(keys.KindSetting), s.Name, s.Version, settingRecord{Version: s.Version + 1, Value: s.Value}, "")
	}
	return nil
}

func (c *change) addKey(k keys.Key) {
	r := keyRecord{
		Version: k.Version + 1, Name: k.Name, Description: k.Description, Organization: k.Organization, Space: k.Space, Account: k.Account,
		Permissions: k.Permissions, AllowedCIDRs: k.AllowedCIDRs, Plan: k.Plan, Overrides: string(k.Overrides),
		Created: micros(k.CreatedAt), Updated: micros(k.UpdatedAt), Expires: micros(k.ExpiresAt), Paused: micros(k.PausedAt),
		Revoked: micros(k.RevokedAt), LastUsed: micros(k.LastUsedAt), Rotated: micros(k.RotatedAt), Lifetime: k.Lifetime.Microseconds(),
	}
	if folded := strings.ToLower(k.Name); folded != k.Name {
		r.Folded = folded
	}
	shown := make([]string, len(k.Secrets))
	for i, s := range k.Secrets {
		r.Secrets = append(r.Secrets, secretRecord{
			Hash: hashText(s.Hash), Prefix: s.Prefix, LastFour: s.LastFour, Created: micros(s.CreatedAt),
			Ends: micros(s.EndsAt), LastUsed: micros(s.LastUsedAt), Imported: s.Imported,
		})
		shown[i] = s.Prefix + "…" + s.LastFour
	}
	c.add(string(keys.KindKey), k.ID, k.Version, r, c.text(shown))
}

func (c *change) addAudit(e keys.AuditEntry) {
	c.add("audit", e.ID, 0, auditRecord{
		At: micros(e.At), Action: e.Action, Actor: e.Actor, ActorAccount: e.ActorAccount, Address: e.Address, RequestID: e.RequestID,
		Kind: string(e.Kind), Target: e.Target, Organization: e.Organization, Before: string(e.Before), After: string(e.After),
	}, e.Organization)
}
