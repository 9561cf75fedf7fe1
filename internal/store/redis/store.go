// Package redis is the shared store: any number of replicas of keygate on one
// Redis, which may be a single server, one behind Sentinel, or a cluster. The
// whole control plane lives in one hash slot; each change is one script.
package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
)

const (
	// schemaVersion is the layout that this version of keygate writes. It counts
	// layouts that a release wrote. None did yet, so 1 still takes in every set that
	// was added; from the first release on another set of keys, or other members of
	// one, is another layout. What an unreleased keygate wrote lacks parts of the
	// index, which lists of keys notice.
	schemaVersion = 1
	// DefaultKeepChanges is about how many change entries are kept: a reader that
	// falls further behind is told so.
	DefaultKeepChanges = 100_000
	// callTimeout bounds every call but Changes, which waits for as long as it is
	// asked to and is bounded by this besides.
	callTimeout = 2 * time.Second
)

// Options of a store.
type Options struct {
	// Client is a *redis.Client, of a single server or behind Sentinel, or a
	// *redis.ClusterClient; see NewClient. It heeds the deadlines of contexts and
	// its time-out for reads is well above a quarter of a second, for which the
	// feed blocks.
	Client goredis.UniversalClient
	// Now stamps what no caller does; time.Now if nil.
	Now func() time.Time
	// KeepChanges is about how many change entries are kept; DefaultKeepChanges
	// if 0.
	KeepChanges int
	// Turned, if not nil, is told when the Redis that is read is not what it was:
	// a replica was promoted, or it was restarted; emptied says that the store is
	// another one. It must not block.
	Turned func(emptied bool)
}

func (o *Options) validate() error {
	switch o.Client.(type) {
	case *goredis.Client, *goredis.ClusterClient:
	default:
		return fmt.Errorf("a store cannot use a client of type %T", o.Client)
	}
	if o.KeepChanges < 0 {
		return fmt.Errorf("%d change entries cannot be kept", o.KeepChanges)
	}
	if o.KeepChanges == 0 {
		o.KeepChanges = DefaultKeepChanges
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Store keeps the control plane in Redis.
type Store struct {
	client      goredis.UniversalClient
	now         func() time.Time
	keepChanges int64
	fresh       bool
	turned      func(emptied bool)
	seen        atomic.Bool // the store was there once
	server      atomic.Pointer[server]
	eras        eras
	applying    sync.RWMutex // Close waits for the changes that are being made
	closing     chan struct{}
	closeOnce   sync.Once
	closeErr    error
}

var (
	_ keys.Store           = (*Store)(nil)
	_ keys.ReplicaRegistry = (*Store)(nil)
)

// New returns a store without asking Redis anything: it may be away and come
// later. Until then every call fails. The store takes the client over and closes
// it.
func New(o Options) (*Store, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	return &Store{client: o.Client, now: o.Now, keepChanges: int64(o.KeepChanges), turned: o.Turned, closing: make(chan struct{})}, nil
}

// Open makes sure that Redis can be written and has the schema that this version
// knows: a *SchemaError if a newer one wrote it. The store takes the client over
// and closes it; after an error it is still the caller's, who may try again.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := New(o)
	if err != nil {
		return nil, err
	}
	found, err := s.ensureSchema(ctx)
	if err != nil {
		return nil, err
	}
	s.fresh = found.created
	if err := s.Ping(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Fresh reports whether Open made this store in an empty Redis: nothing was lost,
// for there was nothing before.
func (s *Store) Fresh() bool { return s.fresh }

// schema is what the store's record says.
type schema struct {
	// identity is a random id that the store is given when it is first used:
	// another one means that everything before it is gone.
	identity string
	created  bool
	prepared bool // see LimitsPrepared
}

func (s *Store) ensureSchema(ctx context.Context) (schema, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id := make([]byte, 12)
	rand.Read(id) // never fails
	answer, err := schemaScript.Run(ctx, s.client, []string{schemaKey}, schemaVersion, hex.EncodeToString(id), micros(s.now()), s.seen.Load()).Slice()
	if err != nil {
		return schema{}, s.failed(ctx, err)
	}
	if len(answer) != 4 {
		return schema{}, fmt.Errorf("the schema record of Redis has %d fields", len(answer))
	}
	if err := checkSchema(answer[0]); err != nil {
		return schema{}, err
	}
	s.seen.Store(true)
	found := schema{created: answer[2] == int64(1), prepared: answer[3] == int64(1)}
	found.identity, _ = answer[1].(string)
	return found, nil
}

// LimitsPrepared reports whether the ledger's markers were made in this store, or
// are missing because something was lost. Where they were not, it is the first use
// of this Redis: whoever starts makes them and then says so with PrepareLimits.
func (s *Store) LimitsPrepared(ctx context.Context) (bool, error) {
	found, err := s.ensureSchema(ctx)
	return found.prepared, err
}

// PrepareLimits notes that the ledger's markers were made.
func (s *Store) PrepareLimits(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.client.HSet(ctx, schemaKey, "limits", "prepared").Err(); err != nil {
		return s.failed(ctx, err)
	}
	return nil
}

// checkSchema refuses what a newer version wrote.
func checkSchema(stored any) error {
	text, _ := stored.(string)
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("the schema record in Redis names no version: %w", err)
	}
	if version > schemaVersion {
		return &SchemaError{Schema: version, Know: schemaVersion}
	}
	return nil
}

// Ping fails when the store cannot serve: it is closed, Redis does not answer,
// is loading, is a replica, or refuses to write. The write that it tries changes
// nothing and takes no memory, so a Redis that is merely full goes unnoticed:
// requests can still be decided then, and Apply says what is wrong.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.ended(ctx); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p := s.client.Pipeline()
	p.Del(bounded, probeKey)
	schema := p.HMGet(bounded, schemaKey, "version", "id")
	if err := execute(bounded, p); err != nil {
		return s.failed(ctx, err)
	}
	if schema.Val()[1] == nil {
		_, err := s.ensureSchema(ctx)
		return err
	}
	s.seen.Store(true)
	return checkSchema(schema.Val()[0])
}

// Close waits for the changes in progress, ends what else waits and closes the
// client. A second call does nothing.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.applying.Lock()
		defer s.applying.Unlock()
		s.closeErr = s.client.Close()
	})
	return s.closeErr
}

// ended reports that the store is closed, or the context's own end.
func (s *Store) ended(ctx context.Context) error {
	select {
	case <-s.closing:
		return ErrClosed
	default:
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// failed explains why a call failed; ctx is the caller's.
func (s *Store) failed(ctx context.Context, err error) error {
	if ended := s.ended(ctx); ended != nil && !isReply(err) {
		return ended
	}
	return explain(err)
}

// onMaster runs commands that must share a connection on the master that holds
// the control plane. A node that is it no longer says so; the client then learns
// the cluster's layout anew.
func (s *Store) onMaster(ctx context.Context, run func(c *goredis.Client) error) error {
	cluster, ok := s.client.(*goredis.ClusterClient)
	if !ok {
		return run(s.client.(*goredis.Client)) // Open accepts no other
	}
	var err error
	for range 2 {
		var node *goredis.Client
		if node, err = cluster.MasterForKey(ctx, schemaKey); err != nil {
			return err
		}
		if err = run(node); err == nil || isReply(err) && !isRedirect(err) || errors.Is(err, goredis.Nil) {
			return err
		}
		cluster.ReloadState(ctx)
	}
	return err
}
