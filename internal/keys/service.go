package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Service changes the control plane. Every change is validated, applied as one
// mutation with its audit entry, and told to Changed before it is acknowledged.
type Service struct {
	store   Store
	format  Format
	policy  func() *Policy
	changed func(Change)
	made    func(Change)
	now     func() time.Time
}

// ServiceOptions of a Service; all but Made are required.
type ServiceOptions struct {
	Store  Store
	Format Format
	// Policy returns the one in force.
	Policy func() *Policy
	// Changed is told of each change before it is acknowledged, so that this
	// replica acts on it at once. It may be told of one that failed.
	Changed func(Change)
	// Made is told of each change that is known to have been made, after Changed.
	Made func(Change)
	Now  func() time.Time
}

// NewService returns a Service.
func NewService(o ServiceOptions) *Service {
	return &Service{store: o.Store, format: o.Format, policy: o.Policy, changed: o.Changed, made: o.Made, now: o.Now}
}

// Actor is who asks for something: it stands in the audit log, and what it may
// do bounds what is done.
type Actor struct {
	Key, Account, Address, RequestID string
	Authority
	// If is the version that a change must be based on; 0: any.
	If int64
	// Applied, if not nil, is told what a change that was made came to.
	Applied func(Applied)
	// Remember, if not nil, turns the result of a change into what is kept with
	// it for a client that repeats the request. It is called before the change
	// is made; the result has no secret.
	Remember func(result any) (*Remembered, error)
}

// System is the Actor of what keygate does by itself.
var System = Actor{Key: "system", Authority: Authority{Operator: true}}

// DefaultOrganization is the slug of the organization that exists from the start.
const DefaultOrganization = "default"

// maxTries bounds how often a change is based anew on a record that someone
// else keeps changing.
const maxTries = 8

// policyOf is the policy that an actor's authority was computed under, so that
// both are judged by one catalogue.
func (s *Service) policyOf(by Actor) *Policy {
	if by.Policy != nil {
		return by.Policy
	}
	return s.policy()
}

// instant is now as the store keeps it.
func (s *Service) instant() time.Time { return s.now().UTC().Truncate(time.Microsecond) }

// apply makes the change and tells of it; result is what it comes to. A change
// whose answer was lost may have happened, so Changed is told in any case.
func (s *Service) apply(ctx context.Context, by Actor, m Mutation, result any) error {
	if by.Remember != nil {
		remembered, err := by.Remember(result)
		if err != nil {
			return err
		}
		m.Remember = remembered
	}
	applied, err := s.store.Apply(ctx, m)
	if err == nil && by.Applied != nil {
		by.Applied(applied)
	}
	for _, c := range m.changes() {
		s.changed(c)
		if err == nil && s.made != nil {
			s.made(c)
		}
	}
	return err
}

// remember keeps the result of a request that changed nothing, or more than can be
// changed at once: repeated, it must not do what it did not do then.
func (s *Service) remember(ctx context.Context, by Actor, now time.Time, result any) error {
	if by.Remember == nil {
		return nil
	}
	return s.apply(ctx, by, Mutation{At: now}, result)
}

// changes is what the mutation adds to the feed, without the numbers that the
// store gives.
func (m *Mutation) changes() []Change {
	var cs []Change
	for _, o := range m.Organizations {
		cs = append(cs, Change{Kind: KindOrganization, ID: o.ID, Organization: o.ID, Version: o.Version + 1})
	}
	for _, sp := range m.Spaces {
		cs = append(cs, Change{Kind: KindSpace, ID: sp.ID, Organization: sp.Organization, Version: sp.Version + 1})
	}
	for _, a := range m.Accounts {
		cs = append(cs, Change{Kind: KindAccount, ID: a.ID, Organization: a.Organization, Version: a.Version + 1})
	}
	for _, g := range slices.Concat(m.Grants, m.DeleteGrants) {
		cs = append(cs, Change{Kind: KindAccount, ID: g.Account, Organization: g.Organization})
	}
	for _, k := range m.Keys {
		cs = append(cs, Change{Kind: KindKey, ID: k.ID, Organization: k.Organization, Version: k.Version + 1})
	}
	for _, st := range m.Settings {
		cs = append(cs, Change{Kind: KindSetting, ID: st.Name, Version: st.Version + 1})
	}
	for _, k := range m.DeleteKeys {
		cs = append(cs, Change{Kind: KindKey, ID: k.ID, Organization: k.Organization})
	}
	for _, a := range m.DeleteAccounts {
		cs = append(cs, Change{Kind: KindAccount, ID: a.ID, Organization: a.Organization})
	}
	for _, sp := range m.DeleteSpaces {
		cs = append(cs, Change{Kind: KindSpace, ID: sp.ID, Organization: sp.Organization})
	}
	for _, o := range m.DeleteOrganizations {
		cs = append(cs, Change{Kind: KindOrganization, ID: o.ID, Organization: o.ID})
	}
	return cs
}

func (s *Service) audit(by Actor, at time.Time, action string, kind Kind, target, organization string, before, after any) AuditEntry {
	return AuditEntry{
		ID: newID(auditPrefix), At: at, Action: action,
		Actor: by.Key, ActorAccount: by.Account, Address: by.Address, RequestID: by.RequestID,
		Kind: kind, Target: target, Organization: organization,
		Before: auditJSON(before), After: auditJSON(after),
	}
}

func auditJSON(v any) []byte {
	if v == nil {
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("keys: %T cannot be written to the audit log: %v", v, err)) // only our own types get here
	}
	return b
}

// revise makes a change that is based on a record as it stands, again if someone
// else changed it in between. An actor that names a version gets no second try.
func revise[T any](by Actor, kind string, read func() (record T, id string, version int64, err error), change func(T) (T, error)) (T, error) {
	for try := 1; ; try++ {
		record, id, version, err := read()
		if err != nil {
			return record, err
		}
		if by.If != 0 && by.If != version {
			return record, &VersionError{Kind: kind, ID: id, Version: version}
		}
		out, err := change(record)
		if errors.Is(err, ErrConflict) && try < maxTries {
			continue
		}
		return out, err
	}
}

// SystemEntry is the audit entry of something that keygate did by itself to the
// whole instance.
func SystemEntry(action string, at time.Time, after any) AuditEntry {
	at = at.UTC().Truncate(time.Microsecond)
	return AuditEntry{ID: newID(auditPrefix), At: at, Action: action, Actor: System.Key, Kind: KindSetting, Target: action, After: auditJSON(after)}
}
