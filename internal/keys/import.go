package keys

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

const (
	// MaxImport bounds the keys of one import.
	MaxImport = 1000
	// importChunk is how many of them are stored as one change.
	importChunk = 100
)

// ImportedKey is a key that was made elsewhere.
type ImportedKey struct {
	NewKey
	// Hash is the SHA-256 of the whole key string: 64 hex digits, or base64 of
	// either alphabet, padded or not.
	Hash string
	// Prefix and LastFour are what may be shown of the key.
	Prefix, LastFour string
	// Status is "active", "paused", "revoked" or "expired"; empty: active. Only
	// an expired and a revoked key may have an expiry that is past.
	Status string
	// Paused is for an expired key, which is paused once it was brought back.
	Paused bool
	// Lifetime is how long Expires was set for, in the form of ParseLifetime;
	// empty: from CreatedAt on.
	Lifetime string
	// CreatedAt is when it was made elsewhere; zero: now.
	CreatedAt time.Time
}

// Imported says what became of one key of an import.
type Imported struct {
	// Key is the new one's id, empty if Err says why there is none.
	Key string
	Err error
}

// ImportKeys stores keys by their hash, so that those who hold them can go on
// using them. Each stands for itself: a wrong one keeps none of the others out.
// The form, if not nil, is declared first, or the gate would not look for them.
func (s *Service) ImportKeys(ctx context.Context, by Actor, form *Form, in []ImportedKey) ([]Imported, error) {
	if err := by.operator("import keys"); err != nil {
		return nil, err
	}
	if len(in) > MaxImport {
		var c check
		c.add("keys", "", "has %d entries; at most %d are allowed at once", len(in), MaxImport)
		return nil, c.err()
	}
	if form != nil {
		if err := s.declareForm(ctx, by, *form); err != nil {
			return nil, err
		}
	}
	whole, accounts := by, accountNames{}
	by.Remember = nil // a part is not the answer
	out := make([]Imported, len(in))
	var chunk []draftKey
	for i := range in {
		k, o, err := s.draftImport(ctx, by, accounts, in[i])
		if err != nil {
			if !refusal(err) {
				return out, err
			}
			out[i].Err = err
			continue
		}
		if len(chunk) > 0 && (len(chunk) == importChunk || chunk[0].organization.ID != o.ID) {
			if err := s.storeImport(ctx, by, chunk, out); err != nil {
				return out, err
			}
			chunk = chunk[:0]
		}
		chunk = append(chunk, draftKey{i, k, o})
	}
	if err := s.storeImport(ctx, by, chunk, out); err != nil {
		return out, err
	}
	return out, s.remember(ctx, whole, s.instant(), out)
}

// draftKey is a key of an import that is in order by itself.
type draftKey struct {
	line         int
	key          Key
	organization Organization
}

// storeImport stores keys of one organization together and, if that is refused,
// one by one, to find those that are to blame.
func (s *Service) storeImport(ctx context.Context, by Actor, chunk []draftKey, out []Imported) error {
	if len(chunk) == 0 {
		return nil
	}
	now := s.instant()
	m := Mutation{At: now}
	var err error
	if m.MaxKeys, err = maxKeys(s.policyOf(by), chunk[0].organization); err != nil {
		return err
	}
	for _, d := range chunk {
		m.Keys = append(m.Keys, d.key)
		m.Audit = append(m.Audit, s.audit(by, now, "key.import", KindKey, d.key.ID, d.key.Organization, nil, keyView(d.key)))
	}
	err = s.apply(ctx, by, m, nil)
	switch {
	case err == nil:
		for _, d := range chunk {
			out[d.line].Key = d.key.ID
		}
		return nil
	case !refusal(err):
		return err
	case len(chunk) == 1:
		out[chunk[0].line].Err = err
		return nil
	}
	for i := range chunk {
		if err := s.storeImport(ctx, by, chunk[i:i+1], out); err != nil {
			return err
		}
	}
	return nil
}

// refusal reports whether an error is about the input, not a failure.
func refusal(err error) bool {
	var invalid *InvalidError
	var forbidden *ForbiddenError
	var exists *ExistsError
	var tooMany *TooManyKeysError
	return errors.As(err, &invalid) || errors.As(err, &forbidden) || errors.As(err, &exists) || errors.As(err, &tooMany) ||
		errors.Is(err, ErrNotFound)
}

func (s *Service) draftImport(ctx context.Context, by Actor, accounts accountNames, in ImportedKey) (Key, Organization, error) {
	now := s.instant()
	var c check
	if err := s.namedAccount(ctx, by, accounts, &in.NewKey); err != nil {
		return Key{}, Organization{}, err
	}
	k, owner, err := s.draft(ctx, by, &c, in.NewKey, now)
	if err != nil {
		return k, owner.organization, err
	}
	if owner.known && k.Organization == "" {
		c.add("organization", "", "is required: keys of the instance's operators are not imported")
	}
	hash, err := ParseHash(in.Hash)
	if err != nil {
		c.add("hash", "", "%s", err)
	}
	c.shown("prefix", in.Prefix, maxPrefix)
	c.shown("last_four", in.LastFour, lastFourChars)
	if !in.CreatedAt.IsZero() {
		if in.CreatedAt.After(now) || in.CreatedAt.Year() < 1971 {
			c.add("created_at", in.CreatedAt.Format(time.RFC3339), "must lie in the past, after 1970")
		}
		k.CreatedAt = in.CreatedAt.UTC().Truncate(time.Microsecond)
	}
	c.importedStatus(&k, in, now)
	k.Secrets = []Secret{{Hash: hash, Prefix: in.Prefix, LastFour: in.LastFour, CreatedAt: k.CreatedAt, Imported: true}}
	return k, owner.organization, c.err()
}

func (c *check) importedStatus(k *Key, in ImportedKey, now time.Time) {
	switch status := Status(in.Status); status {
	case "", Expired:
	case Active:
		if in.Paused {
			c.add("paused", "true", "contradicts the status active")
		}
	case Paused:
		k.PausedAt = now
	case Revoked:
		k.RevokedAt = now
	default:
		c.add("status", in.Status, "must be active, paused, revoked or expired")
	}
	if in.Paused {
		k.PausedAt = now
	}
	c.importedExpiry(k, in, now)
}

// importedExpiry reads when a key ends or ended, and how long it was to live: a
// rotation gives it that anew.
func (c *check) importedExpiry(k *Key, in ImportedKey, now time.Time) {
	at, err := time.Parse(time.RFC3339, in.Expires)
	past := err == nil && !at.After(now) && at.Year() >= 1971
	switch status := Status(in.Status); {
	case past && (status == Expired || status == Revoked):
		k.ExpiresAt = at.UTC().Truncate(time.Microsecond)
	case status == Expired:
		c.add("expires", in.Expires, "must be the past instant, as in RFC 3339, at which the key expired")
		return
	default:
		if k.ExpiresAt, err = ParseExpiry(in.Expires, now); err != nil {
			c.add("expires", in.Expires, "%s", err)
			return
		}
	}
	k.Lifetime = max(lifetime(k.ExpiresAt, k.CreatedAt), 0)
	if in.Lifetime == "" {
		return
	}
	if k.Lifetime, err = ParseLifetime(in.Lifetime); err != nil {
		c.add("lifetime", in.Lifetime, "%s", err)
	} else if k.ExpiresAt.IsZero() {
		c.add("lifetime", in.Lifetime, "belongs to expires, which is missing")
	}
}

// shown bounds what is kept of a foreign key to be shown.
func (c *check) shown(field, s string, most int) {
	if len(s) > most || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		c.add(field, s, "must be at most %d visible ASCII characters", most)
	}
}

// ParseHash reads the SHA-256 of a key in hex or base64.
func ParseHash(s string) (h Hash, err error) {
	var b []byte
	if len(s) == hex.EncodedLen(len(h)) {
		b, err = hex.DecodeString(s)
	} else {
		padding := base64.StdPadding
		if len(s) == base64.RawStdEncoding.EncodedLen(len(h)) {
			padding = base64.NoPadding
		}
		if b, err = base64.StdEncoding.WithPadding(padding).Strict().DecodeString(s); err != nil {
			b, err = base64.URLEncoding.WithPadding(padding).Strict().DecodeString(s)
		}
	}
	if err != nil || len(b) != len(h) || strings.ContainsAny(s, "\r\n") { // which encoding/base64 passes over
		return h, errors.New("must be the SHA-256 of the key: 64 hex digits, or 32 bytes in base64")
	}
	if h = Hash(b); h == HashSecret("") {
		return h, errors.New("is the SHA-256 of nothing")
	}
	return h, nil
}

// declareForm makes the gate look for keys of a form.
func (s *Service) declareForm(ctx context.Context, by Actor, f Form) error {
	if err := f.Validate(); err != nil {
		return err
	}
	if f.Prefix == s.format.Prefix() || strings.HasPrefix(f.Prefix, s.format.Prefix()+"_") {
		var c check
		c.add("form.prefix", f.Prefix, "is this instance's own: such keys must have its whole form, and need none declared")
		return c.err()
	}
	by.If, by.Remember = 0, nil
	type declared struct {
		forms   []Form
		setting Setting
	}
	_, err := revise(by, string(KindSetting), func() (declared, string, int64, error) {
		forms, setting, err := Forms(ctx, s.store)
		return declared{forms, setting}, FormsSetting, setting.Version, err
	}, func(d declared) (declared, error) {
		setting, changed, err := withForm(d.forms, d.setting, f)
		if err != nil || !changed {
			return d, err
		}
		now := s.instant()
		return d, s.apply(ctx, by, Mutation{
			At: now, Settings: []Setting{setting},
			Audit: []AuditEntry{s.audit(by, now, "forms.declare", KindSetting, FormsSetting, "", nil, f)},
		}, nil)
	})
	var exists *ExistsError
	if errors.As(err, &exists) { // somebody else declared the first one at this moment
		return s.declareForm(ctx, by, f)
	}
	return err
}
