package redis

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"keygate/internal/keys"
)

const (
	// remember is how long a change is known by its token: a second call with
	// it, which is only ever sent within applyTimeout, answers as the first.
	remember = time.Minute
	// applyTimeout bounds a change with all its repetitions, and so how long a
	// caller whose context ended waits for the outcome of one that was sent.
	applyTimeout = 2 * time.Second
	// applyTries is how often a change is sent whose answer did not come.
	applyTries = 2
	// replicaWait is how long a change waits for a replica to have it too.
	replicaWait = 200 * time.Millisecond
)

// Apply implements keys.Store: one script makes the change. A context that ends
// before it is sent withdraws it; later the outcome is waited for, because
// nobody could tell otherwise whether it was made. It is durable if a replica has
// it or, where there are none, if Redis has put it on its disk. A log that it syncs
// every second is not enough: while the disk is busy with that, the next changes
// are answered before they are written anywhere, and die with the process.
func (s *Store) Apply(ctx context.Context, m keys.Mutation) (keys.Applied, error) {
	c, err := encode(m)
	if err != nil {
		return keys.Applied{}, err
	}
	done, err := s.change(ctx, c)
	return keys.Applied{Durable: done.durable, Seq: done.seq}, err
}

// RegisterPolicy implements keys.Store. A policy that is registered already is
// no news for the audit log.
func (s *Store) RegisterPolicy(ctx context.Context, digest string, by keys.AuditEntry) (int64, error) {
	c := &change{meta: meta{At: micros(s.now()), Policy: digest}}
	c.addAudit(by)
	if c.err != nil {
		return 0, c.err
	}
	done, err := s.change(ctx, c)
	return done.policy, err
}

// made is what a change came to: the policy's number, if one was to be registered,
// and that of the last entry in the feed.
type made struct {
	policy, seq int64
	durable     bool
}

// change runs the apply script.
func (s *Store) change(ctx context.Context, c *change) (made, error) {
	if err := s.ended(ctx); err != nil {
		return made{}, err
	}
	s.applying.RLock()
	defer s.applying.RUnlock()
	if err := s.ended(ctx); err != nil { // it waited for Close
		return made{}, err
	}
	token := make([]byte, 12)
	rand.Read(token) // never fails
	c.meta.Token, c.meta.Known = hex.EncodeToString(token), schemaVersion
	c.meta.Remember, c.meta.Keep = remember.Milliseconds(), s.keepChanges
	text, err := json.Marshal(c.meta)
	if err != nil {
		return made{}, err
	}
	args := append([]any{text}, c.records...)
	sent, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	var answer []any
	var durable bool
	for range applyTries {
		answer, durable, err = s.send(sent, args)
		if err == nil || isReply(err) || sent.Err() != nil {
			break
		}
	}
	switch {
	case err == nil:
		return outcome(answer, durable, c)
	case isReply(err):
		return made{}, explain(err)
	}
	return made{}, fmt.Errorf("%w; whether the change was made is not known", explain(err))
}

// send runs the script and, where the master has replicas, waits for one of them
// to have the change: WAIT counts for its own connection, so both are sent on
// one.
func (s *Store) send(ctx context.Context, args []any) (answer []any, durable bool, err error) {
	server := s.recentServer(ctx)
	if server.replicas == 0 {
		answer, err = applyScript.Run(ctx, s.client, []string{schemaKey}, args...).Slice()
		return answer, server.synced, err
	}
	call := func(run func(p goredis.Pipeliner) *goredis.Cmd) (*goredis.Cmd, *goredis.IntCmd, error) {
		var script *goredis.Cmd
		var wait *goredis.IntCmd
		err := s.onMaster(ctx, func(c *goredis.Client) error {
			p := c.Pipeline()
			script, wait = run(p), goredis.NewIntCmd(ctx, "wait", 1, replicaWait.Milliseconds())
			p.Process(ctx, wait)
			_, err := p.Exec(ctx)
			if script.Err() == nil && wait.Err() != nil { // it was made, though nobody knows where
				return nil
			}
			return err
		})
		return script, wait, err
	}
	script, wait, err := call(func(p goredis.Pipeliner) *goredis.Cmd {
		return applyScript.EvalSha(ctx, p, []string{schemaKey}, args...)
	})
	if goredis.HasErrorPrefix(err, "NOSCRIPT") {
		script, wait, err = call(func(p goredis.Pipeliner) *goredis.Cmd {
			return applyScript.Eval(ctx, p, []string{schemaKey}, args...)
		})
	}
	if isRedirect(err) { // the slot is moving: the client finds its way, but on more than one connection
		answer, err = applyScript.Run(ctx, s.client, []string{schemaKey}, args...).Slice()
		return answer, false, err
	}
	if err != nil {
		return nil, false, err
	}
	answer, err = script.Slice()
	return answer, wait.Err() == nil && wait.Val() > 0, err
}

// outcome reads the script's answer.
func outcome(answer []any, durable bool, c *change) (made, error) {
	word := func(i int) string {
		if i >= len(answer) {
			return ""
		}
		text, _ := answer[i].(string)
		return text
	}
	if word(0) != "ok" {
		return made{}, refusal(word, c)
	}
	policy, err := strconv.ParseInt(word(1), 10, 64)
	if err != nil {
		return made{}, fmt.Errorf("the number of a policy: %w", err)
	}
	seq, err := strconv.ParseInt(word(2), 10, 64)
	if err != nil {
		return made{}, fmt.Errorf("the number of a change: %w", err)
	}
	return made{policy: policy, seq: seq, durable: durable}, nil
}

// refusal is why the script did not make the change.
func refusal(word func(i int) string, c *change) error {
	switch word(0) {
	case "exists":
		return &keys.ExistsError{Kind: word(1), Field: word(2), Value: word(3)}
	case "used":
		return &keys.InUseError{Kind: word(1), ID: word(2), By: word(3)}
	case "gone":
		return fmt.Errorf("%s %s: %w", word(1), word(2), keys.ErrNotFound)
	case "dangling":
		return fmt.Errorf("what %s %s refers to: %w", word(1), word(2), keys.ErrNotFound)
	case "conflict":
		return fmt.Errorf("%s %s (stored version %s): %w", word(1), word(2), word(3), keys.ErrConflict)
	case "many":
		return &keys.TooManyKeysError{Organization: word(1), Max: c.meta.Max.Max}
	case "schema":
		version, err := strconv.ParseInt(word(1), 10, 64)
		return errors.Join(&SchemaError{Schema: version, Know: schemaVersion}, err)
	}
	return fmt.Errorf("a change was answered with %q, which this version of keygate does not know", word(0))
}
