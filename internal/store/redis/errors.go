package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// ErrClosed is what a closed store answers.
var ErrClosed = errors.New("the store is closed")

// SchemaError says that a newer keygate wrote the store.
type SchemaError struct{ Schema, Know int64 }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("the store in Redis has schema %d and this version of keygate knows %d at most: start the newer version", e.Schema, e.Know)
}

// isReply tells what Redis answered from an answer that did not come.
func isReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply)
}

// isRedirect: a cluster's slot is elsewhere, or on its way.
func isRedirect(err error) bool {
	if err == nil {
		return false
	}
	_, moved := goredis.IsMovedError(err)
	_, asked := goredis.IsAskError(err)
	return moved || asked || goredis.IsTryAgainError(err)
}

// refusals are the answers of a Redis that cannot serve, by their first word,
// and what they mean. The word may come later in the text: versions before 7 put
// the script's name before it.
var refusals = []struct{ word, meaning string }{
	{"READONLY", "Redis refuses writes: this node is a replica, or has become one in a failover; REDIS_URL must lead to the master"},
	{"OOM", "Redis refuses writes: maxmemory is reached and nothing may be evicted (noeviction): raise maxmemory"},
	{"MISCONF", "Redis refuses writes: it cannot save to its disk; its log says why"},
	{"NOREPLICAS", "Redis refuses writes: fewer replicas are connected than min-replicas-to-write asks for"},
	{"LOADING", "Redis is loading its data after a start"},
	{"CLUSTERDOWN", "the Redis cluster does not serve: a master without a replica to take its place is down"},
	{"MASTERDOWN", "Redis is a replica that has lost its master"},
	{"BUSY", "Redis is busy with a script of some other program that does not end"},
	{"NOAUTH", "Redis wants a password: REDIS_URL has none"},
	{"WRONGPASS", "Redis refuses the user name or the password of REDIS_URL"},
	{"NOPERM", "Redis does not allow this user what keygate needs: all commands on the keys kg:*, INFO, and scripts"},
	{"max number of clients", "Redis takes no more connections: raise its maxclients"},
}

// explain turns an error of Redis or of the way to it into one line that says
// what to do. Errors of contexts pass unchanged, but for our own bound.
func explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if isReply(err) {
		for _, r := range refusals {
			if strings.Contains(text, r.word) {
				return fmt.Errorf("%s (%w)", r.meaning, err)
			}
		}
		return fmt.Errorf("answer of Redis: %w", err)
	}
	var dial *net.OpError
	switch {
	case errors.Is(err, goredis.ErrClosed):
		return ErrClosed
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("cannot reach Redis: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no answer from Redis in time: %w", err)
	}
	return fmt.Errorf("on the way to Redis: %w", err)
}
