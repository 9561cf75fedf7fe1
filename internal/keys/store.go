package keys

import (
	"context"
	"time"
)

// Store keeps the control plane: records, their audit log and the feed of
// changes. Two engines implement it and pass the same contract (storetest).
//
// Reads return copies that the caller may keep. An unknown id, slug or hash is
// ErrNotFound; any other error means that the store failed. Times have
// microsecond resolution and are UTC.
type Store interface {
	// Apply makes one change: all of it, with its audit and change entries, or
	// nothing. Errors: ErrConflict, ErrNotFound (a record to be changed, or one
	// referred to, is gone), *ExistsError, *TooManyKeysError. After any other a
	// change may have been made whose answer was lost.
	Apply(ctx context.Context, m Mutation) (Applied, error)

	// Lookup finds a key by the hash of a presented secret, with all that a
	// decision about it needs, in one round trip and as of one instant.
	Lookup(ctx context.Context, h Hash) (Found, error)

	Reader
	AuditLog(ctx context.Context, page Page) ([]AuditEntry, error)

	// Setting reads a named value of the instance.
	Setting(ctx context.Context, name string) (Setting, error)

	// Changes returns what changed after the cursor, oldest first, at most
	// 1,000. With nothing to return it waits, at most for wait, and then
	// answers an empty batch. The cursor FeedEnd starts at the present end, 0
	// at the beginning; the answer to FeedEnd comes at once. A cursor ahead of
	// the end, as after an older backup was restored, is a gap too.
	Changes(ctx context.Context, after int64, wait time.Duration) (ChangeBatch, error)

	// RegisterPolicy gives a policy its number: the same digest as the last
	// one registered keeps its number, another one gets the next, and by enters
	// the audit log.
	RegisterPolicy(ctx context.Context, digest string, by AuditEntry) (int64, error)

	// Ping fails when the store cannot serve.
	Ping(ctx context.Context) error
	// Close ends what waits; later calls fail, but for Close.
	Close() error
}

// Reader reads records.
type Reader interface {
	// Organization and Space take an id or a slug.
	Organization(ctx context.Context, ref string) (Organization, error)
	Space(ctx context.Context, organization, ref string) (Space, error)
	Account(ctx context.Context, id string) (Account, error)
	Key(ctx context.Context, id string) (Key, error)
	// Grants lists an account's grants, oldest first; none is no error.
	Grants(ctx context.Context, account string) ([]Grant, error)

	// Lists are in order of creation (ids sort by it), newest first; fewer
	// than page.Limit records mean that it was the last page. The accounts of
	// no organization are the operators'.
	Organizations(ctx context.Context, page Page) ([]Organization, error)
	Spaces(ctx context.Context, organization string, page Page) ([]Space, error)
	Accounts(ctx context.Context, organization string, page Page) ([]Account, error)
	Keys(ctx context.Context, f KeyFilter, page Page) ([]Key, error)
}

// FeedEnd is the cursor of a reader who wants only what changes from now on.
const FeedEnd = -1

// Mutation is one atomic change. A record's Version is the one that the change
// is based on, 0 for a new record; the store writes Version+1. A record whose
// stored version is another makes the whole mutation fail with ErrConflict; a
// record whose id, slug, hash or name (settings) is taken with *ExistsError,
// whose Value for a hash is what may be shown of the secret. Deleted keys make
// room for what the same mutation writes.
type Mutation struct {
	// At stamps the change and decides which keys count as expired.
	At            time.Time
	Organizations []Organization
	Spaces        []Space
	Accounts      []Account
	Grants        []Grant // always new
	Keys          []Key   // with all their secrets
	Settings      []Setting
	// DeleteKeys removes keys and their secrets for good; ID and Version count.
	DeleteKeys []Key
	// MaxKeys, if set, must hold after the change.
	MaxKeys *MaxKeys
	Audit   []AuditEntry
}

// Applied is what a change that was made came to.
type Applied struct {
	// Durable: the change outlives the process that keeps it. A store that is
	// shared may make changes of which nobody else has a copy yet.
	Durable bool
}

// MaxKeys bounds the keys of an organization that are neither revoked nor
// expired; a Max of Unlimited bounds nothing.
type MaxKeys struct {
	Organization string
	Max          int
}

// Found is a key as a request needs it.
type Found struct {
	Key Key
	// Secret is the index in Key.Secrets of the one presented.
	Secret int
	// Organization is zero for keys of the instance's operators.
	Organization Organization
	// Space is zero for keys without one.
	Space Space
	// Grants are all of the owner's.
	Grants []Grant
}

// Page asks for at most Limit records after the one with id After.
type Page struct {
	After string
	Limit int
}

// KeyFilter selects keys; an empty field selects all.
type KeyFilter struct {
	Organization string
	Name         string
}

// Setting is a named value of the instance, such as which key bootstrapped it.
type Setting struct {
	Name    string
	Value   string
	Version int64
}

// Kind names what changed.
type Kind string

// The kinds of records in the change feed. A change of grants is a change of
// its account.
const (
	KindKey          Kind = "key"
	KindOrganization Kind = "organization"
	KindSpace        Kind = "space"
	KindAccount      Kind = "account"
	KindSetting      Kind = "setting"
)

// Change is one entry of the feed: what to forget, not what it became.
type Change struct {
	Seq          int64
	Kind         Kind
	ID           string
	Organization string
	// Version is the record's new one, 0 if it was deleted. Grants do not
	// raise their account's.
	Version int64
}

// ChangeBatch is a stretch of the feed.
type ChangeBatch struct {
	Changes []Change
	// Next is the cursor to continue from.
	Next int64
	// Gap says that entries between the cursor and the first change are no
	// longer kept: everything remembered must be dropped.
	Gap bool
}

// AuditEntry records who did what. It never holds a secret.
type AuditEntry struct {
	ID     string
	At     time.Time
	Action string // "key.create", "organization.create", "policy.load" …
	// Actor is the key id that acted, or "system".
	Actor        string
	ActorAccount string
	Address      string
	RequestID    string
	Kind         Kind
	Target       string
	Organization string
	// Before and After are JSON objects; empty where there was, or is, nothing.
	Before, After []byte
}
