package keys

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// bootstrapSetting records which key was made for the first administrator.
const bootstrapSetting = "bootstrap"

type bootstrapValue struct {
	Key string `json:"key"`
	// Hash of the secret, to recognise it after the key was deleted.
	Hash string `json:"hash"`
}

// BootstrapOptions say how an instance starts.
type BootstrapOptions struct {
	// Secret is the administrator's key that the operator chose; empty: on a
	// first start one is generated, later nothing happens.
	Secret string
	// ClientKey asks for a first key of the default organization, made only
	// together with a generated administrator's key.
	ClientKey bool
	// Keep, if not nil, is given what was generated before it is made valid, so
	// that a crash in between cannot lose the only copy.
	Keep func(Bootstrapped) error
}

// Bootstrapped says what a start did.
type Bootstrapped struct {
	// First: this start made the default organization and the administrator's key.
	First bool
	// AdminSecret and ClientSecret are set where they were generated: they can
	// never be read again.
	AdminSecret, ClientSecret string
	// Warning tells the operator why the chosen secret does not work; empty if it does.
	Warning string
}

// SecretTakenError says that the chosen administrator's secret belongs to a key
// that is in use for something else.
type SecretTakenError struct{ Key string }

func (e *SecretTakenError) Error() string {
	return fmt.Sprintf("it is already the secret of key %s, which is not the administrator's: choose another", e.Key)
}

// Bootstrap makes sure that the instance has its default organization and its
// administrator's key. The first start happens once, however many replicas try
// it at the same time. A secret that differs from the former one replaces it;
// a key that was revoked or deleted through the API stays dead.
func (s *Service) Bootstrap(ctx context.Context, o BootstrapOptions) (Bootstrapped, error) {
	for try := 1; ; try++ {
		b, err := s.bootstrap(ctx, o)
		var exists *ExistsError
		if (errors.Is(err, ErrConflict) || errors.As(err, &exists)) && try < maxTries {
			continue // another replica did it first
		}
		return b, err
	}
}

func (s *Service) bootstrap(ctx context.Context, o BootstrapOptions) (Bootstrapped, error) {
	setting, err := s.store.Setting(ctx, bootstrapSetting)
	switch {
	case errors.Is(err, ErrNotFound):
		return s.firstStart(ctx, o)
	case err != nil:
		return Bootstrapped{}, err
	case o.Secret == "":
		return Bootstrapped{}, nil
	}
	var v bootstrapValue
	if err := json.Unmarshal([]byte(setting.Value), &v); err != nil {
		return Bootstrapped{}, fmt.Errorf("the store's setting %q is not readable: %w", bootstrapSetting, err)
	}
	return s.chosenSecret(ctx, o.Secret, setting, v)
}

func (s *Service) firstStart(ctx context.Context, o BootstrapOptions) (Bootstrapped, error) {
	now, out := s.instant(), Bootstrapped{First: true}
	secret := o.Secret
	if secret == "" {
		secret = s.format.Generate()
		out.AdminSecret = secret
	}
	org := Organization{
		ID: newID(organizationPrefix), Slug: DefaultOrganization, Name: DefaultOrganization,
		Plan: s.policy().DefaultPlan, CreatedAt: now, UpdatedAt: now,
	}
	operator := Account{ID: newID(accountPrefix), Name: "operator", CreatedAt: now, UpdatedAt: now}
	admin := s.adminKey(operator.ID, secret, now)
	m := Mutation{
		At: now, Organizations: []Organization{org}, Accounts: []Account{operator}, Keys: []Key{admin},
		Grants:   []Grant{{ID: newID(grantPrefix), Account: operator.ID, Permission: PermissionOperator, CreatedAt: now}},
		Settings: []Setting{bootstrapRecord(Setting{}, admin.ID, secret)},
	}
	m.addOwner(org)
	if o.Secret == "" && o.ClientKey {
		out.ClientSecret = s.format.Generate()
		m.Keys = append(m.Keys, Key{
			ID: newID(keyPrefix), Name: "first key", Description: "Made at the first start, to try keygate.",
			Organization: org.ID, Account: DefaultAccount(org.ID),
			Secrets: []Secret{NewSecret(s.format, out.ClientSecret, now)}, CreatedAt: now, UpdatedAt: now,
		})
	}
	m.Audit = []AuditEntry{s.audit(System, now, "organization.create", KindOrganization, org.ID, org.ID, nil, organizationView(org))}
	m.Audit = append(m.Audit, s.audit(System, now, "account.create", KindAccount, operator.ID, "", nil, accountView(operator, m.Grants[0])))
	for _, k := range m.Keys {
		m.Audit = append(m.Audit, s.audit(System, now, "key.create", KindKey, k.ID, k.Organization, nil, keyView(k)))
	}
	if o.Keep != nil && out.AdminSecret != "" {
		if err := o.Keep(out); err != nil {
			return Bootstrapped{}, err
		}
	}
	if err := s.apply(ctx, System, m, nil); err != nil {
		return Bootstrapped{}, err
	}
	return out, nil
}

func (s *Service) adminKey(account, secret string, now time.Time) Key {
	return Key{
		ID: newID(keyPrefix), Name: "administrator", Description: "The administrator's key that keygate started with.",
		Account: account, Permissions: []string{PermissionOperator},
		Secrets: []Secret{NewSecret(s.format, secret, now)}, CreatedAt: now, UpdatedAt: now,
	}
}

func bootstrapRecord(former Setting, key, secret string) Setting {
	h := HashSecret(secret)
	value, err := json.Marshal(bootstrapValue{Key: key, Hash: hex.EncodeToString(h[:])})
	if err != nil {
		panic("keys: " + err.Error()) // two strings always marshal
	}
	return Setting{Name: bootstrapSetting, Value: string(value), Version: former.Version}
}

// chosenSecret makes the operator's secret the administrator's, unless it is
// that already or was put out of use on purpose.
func (s *Service) chosenSecret(ctx context.Context, secret string, setting Setting, v bootstrapValue) (Bootstrapped, error) {
	h := HashSecret(secret)
	found, err := s.store.Lookup(ctx, h)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Bootstrapped{}, err
	}
	known := err == nil
	switch {
	case known && !found.Key.RevokedAt.IsZero():
		return Bootstrapped{Warning: "the chosen administrator's key was revoked through the API and stays revoked: choose another"}, nil
	case known && found.Key.ID != v.Key:
		return Bootstrapped{}, &SecretTakenError{Key: found.Key.ID}
	case known && found.Secret == 0 && !found.Key.PausedAt.IsZero():
		return Bootstrapped{Warning: "the chosen administrator's key is paused and stays paused: choose another, or resume it through the API"}, nil
	case known && found.Secret == 0:
		return Bootstrapped{Warning: s.powerless(found)}, nil
	case !known && v.Hash == hex.EncodeToString(h[:]):
		return Bootstrapped{Warning: "the chosen administrator's key was deleted through the API and stays deleted: choose another"}, nil
	}
	return Bootstrapped{}, s.replaceAdmin(ctx, secret, setting, v)
}

// powerless says why the administrator's key is of little use as it is; empty if
// it is not.
func (s *Service) powerless(f Found) string {
	const instead = ": another KEYGATE_BOOTSTRAP_KEY makes it work again"
	policy := s.policy()
	held := policy.Catalogue.Expand(f.Key.Permissions).And(policy.Granted(f.Grants, "", ""))
	switch i, ok := policy.Catalogue.Index(PermissionOperator); {
	case f.Key.Status(s.now()) == Expired:
		return "the chosen administrator's key has expired" + instead
	case !ok || !held.Has(i):
		return "the chosen administrator's key no longer has " + PermissionOperator + ", or its account does not" + instead
	case len(f.Key.AllowedCIDRs) > 0:
		return "the chosen administrator's key may be used from some addresses only" + instead + " from everywhere"
	}
	return ""
}

// replaceAdmin gives the administrator's key another secret and what it needs to
// be one, or makes a new key where the former was revoked or deleted.
func (s *Service) replaceAdmin(ctx context.Context, secret string, setting Setting, v bootstrapValue) error {
	now := s.instant()
	m := Mutation{At: now}
	former, err := s.store.Key(ctx, v.Key)
	switch {
	case err != nil && !errors.Is(err, ErrNotFound):
		return err
	case err == nil && former.RevokedAt.IsZero():
		before := keyView(former)
		k := former
		k.Secrets = withPresent(former.Secrets, NewSecret(s.format, secret, now), now)
		k.UpdatedAt, k.RotatedAt = now, now
		// Or nobody could mend what the API has done to it.
		k.PausedAt, k.ExpiresAt, k.Lifetime, k.AllowedCIDRs = time.Time{}, time.Time{}, 0, nil
		if !slices.Contains(k.Permissions, PermissionOperator) {
			k.Permissions = []string{PermissionOperator}
		}
		m.Keys = []Key{k}
		m.Audit = []AuditEntry{s.audit(System, now, "key.rotate", KindKey, k.ID, "", before, keyView(k))}
		if err := s.operatorAgain(ctx, &m, k.Account, now); err != nil {
			return err
		}
	default:
		operator := Account{ID: newID(accountPrefix), Name: "operator", CreatedAt: now, UpdatedAt: now}
		k := s.adminKey(operator.ID, secret, now)
		m.Accounts, m.Keys = []Account{operator}, []Key{k}
		m.Grants = []Grant{{ID: newID(grantPrefix), Account: operator.ID, Permission: PermissionOperator, CreatedAt: now}}
		m.Audit = []AuditEntry{
			s.audit(System, now, "account.create", KindAccount, operator.ID, "", nil, accountView(operator, m.Grants[0])),
			s.audit(System, now, "key.create", KindKey, k.ID, "", nil, keyView(k)),
		}
	}
	m.Settings = []Setting{bootstrapRecord(setting, m.Keys[0].ID, secret)}
	return s.apply(ctx, System, m, nil)
}

// operatorAgain gives the account of the administrator's key its grant back, if it
// was taken away.
func (s *Service) operatorAgain(ctx context.Context, m *Mutation, account string, now time.Time) error {
	grants, err := s.store.Grants(ctx, account)
	if err != nil {
		return err
	}
	policy := s.policy()
	if i, ok := policy.Catalogue.Index(PermissionOperator); ok && policy.Granted(grants, "", "").Has(i) {
		return nil
	}
	g := Grant{ID: newID(grantPrefix), Account: account, Permission: PermissionOperator, CreatedAt: now}
	m.Grants = append(m.Grants, g)
	m.Audit = append(m.Audit, s.audit(System, now, "grant.add", KindAccount, account, "", nil, grantView(g)))
	return nil
}

// withPresent puts a secret first and ends the others at now. A secret that the
// key had before becomes the present one again.
func withPresent(secrets []Secret, present Secret, now time.Time) []Secret {
	out := []Secret{present}
	for _, old := range secrets {
		if old.Hash == present.Hash {
			out[0].CreatedAt, out[0].LastUsedAt = old.CreatedAt, old.LastUsedAt
			continue
		}
		if old.EndsAt.IsZero() || now.Before(old.EndsAt) {
			old.EndsAt = now
		}
		if len(out) < maxSecrets {
			out = append(out, old)
		}
	}
	return out
}
