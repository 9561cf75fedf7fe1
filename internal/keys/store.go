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
	// referred to, is gone), *ExistsError, *InUseError, *TooManyKeysError. After
	// any other a change may have been made whose answer was lost.
	Apply(ctx context.Context, m Mutation) (Applied, error)

	// Used notes when keys were used. A use less than UseEvery after the one that
	// is stored changes nothing, nor does one of a key or secret that is gone.
	// Versions, feed and audit log do not move. Uses of one call are of different
	// keys or secrets.
	Used(ctx context.Context, uses []Use) error

	// Remembered returns what a mutation was remembered with; ErrNotFound once
	// its time, by the store's own clock, is over.
	Remembered(ctx context.Context, id string) (Remembered, error)

	// Lookup finds a key by the hash of a presented secret, with all that a
	// decision about it needs, in one round trip and as of one instant.
	Lookup(ctx context.Context, h Hash) (Found, error)

	Reader

	// AuditLog lists entries, newest first.
	AuditLog(ctx context.Context, f AuditFilter, page Page) (AuditPage, error)

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
	// Grants lists the grants of accounts, in the order of the accounts and then
	// oldest first; none is no error.
	Grants(ctx context.Context, accounts ...string) ([]Grant, error)

	// Lists are in order of creation (ids sort by it), newest first; fewer
	// than page.Limit records mean that it was the last page. page.After is the
	// id of the last record of the page before. The accounts of no organization
	// are the operators'.
	Organizations(ctx context.Context, page Page) ([]Organization, error)
	Spaces(ctx context.Context, organization string, page Page) ([]Space, error)
	Accounts(ctx context.Context, organization string, page Page) ([]Account, error)
	// Keys lists keys newest first; with UnusedSince longest unused first, with
	// ExpiresBefore soonest first, with Query as the store likes. page.After is
	// Next of the page before.
	Keys(ctx context.Context, f KeyFilter, page Page) (KeyPage, error)
}

// FeedEnd is the cursor of a reader who wants only what changes from now on.
const FeedEnd = -1

// FeedNumber is the part of a cursor, or of a Change.Seq, that is the same for
// every replica; a store may keep a mark of its own above it.
func FeedNumber(seq int64) int64 { return seq & (1<<40 - 1) }

// Mutation is one atomic change. A record's Version is the one that the change
// is based on, 0 for a new record; the store writes Version+1. A record whose
// stored version is another makes the whole mutation fail with ErrConflict; a
// record whose id, slug, hash or name (settings) is taken with *ExistsError,
// whose Value for a hash is what may be shown of the secret.
//
// What is deleted goes first and makes room for what the same mutation writes,
// in the order keys, grants, accounts, spaces, organizations. Of a record to be
// deleted ID and Version count (grants have no version); its change entry has
// version 0. A record to which others still refer ends in *InUseError: an
// account that owns keys; a space with keys or grants; an organization with
// keys, spaces, accounts or grants. An account's grants go with it. A deleted
// grant is a change of its account, at the account's version.
//
// A key's LastUsedAt, and a secret's, never goes back: the store keeps the later
// one of what it has and what a mutation says.
type Mutation struct {
	// At stamps the change and decides which keys count as expired.
	At            time.Time
	Organizations []Organization
	Spaces        []Space
	Accounts      []Account
	Grants        []Grant // always new
	Keys          []Key   // with all their secrets
	Settings      []Setting
	// DeleteKeys removes keys and their secrets for good.
	DeleteKeys          []Key
	DeleteGrants        []Grant
	DeleteAccounts      []Account
	DeleteSpaces        []Space
	DeleteOrganizations []Organization
	// MaxKeys, if set, must hold after the change.
	MaxKeys *MaxKeys
	Audit   []AuditEntry
	// Remember, if set, is kept with the change until its time is over. One whose
	// ID is kept already ends in *ExistsError{"request", "id", …}.
	Remember *Remembered
}

// Remembered is the answer to a change, for a client that asks for it again.
type Remembered struct {
	ID string // whose request it was, and its name
	// Digest tells another request under the same name.
	Digest string
	Answer []byte
	Until  time.Time
}

// Applied is what a change that was made came to.
type Applied struct {
	// Durable: the change outlives the process that keeps it. A store that is
	// shared may make changes of which nobody else has a copy yet.
	Durable bool
	// Seq is the FeedNumber of the change's last entry in the feed; 0 if it has none.
	Seq int64
}

// Use says that a key was used.
type Use struct {
	Key string
	// Secret is the one presented, where the key has several; else zero.
	Secret Hash
	At     time.Time
}

// UseEvery is how closely uses are told apart.
const UseEvery = time.Minute

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

// KeyFilter selects the keys that pass all of its fields; an empty one passes all.
type KeyFilter struct {
	Organization string
	Account      string
	Space        string
	// Name is the whole name, Query some part of it in any letter case.
	Name, Query string
	// Status is the one at At.
	Status Status
	// UnusedSince selects keys that were last used, or else made, at this instant
	// or before.
	UnusedSince time.Time
	// ExpiresBefore selects keys that are not revoked and end after At and, at
	// the latest, at this instant.
	ExpiresBefore time.Time
	At            time.Time
}

// MaxCursor bounds Next of a page, in bytes: one that stands in a list of names holds a
// name of 100 characters twice, of four bytes each, in base64.
const MaxCursor = 2000

// KeyPage is a stretch of a list. It may be shorter than asked for, even empty,
// and not the last: a call looks at a bounded number of records. Next is empty
// at the end.
type KeyPage struct {
	Keys []Key
	Next string
}

// AuditFilter selects entries of the audit log; an empty field passes all.
type AuditFilter struct {
	Organization string
	// Target is the id of what was changed, Actor the key or the account that did it.
	Target, Actor string
	Action        string
	// Since (inclusive) and Until (exclusive) bound the instant.
	Since, Until time.Time
}

// AuditPage is a stretch of the audit log, as KeyPage is of keys.
type AuditPage struct {
	Entries []AuditEntry
	Next    string
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
