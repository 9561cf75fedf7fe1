package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	goredis "github.com/redis/go-redis/v9"
)

// A script is known to Redis by its hash once it was sent in full.
type script struct{ source, hash string }

func newScript(source string) script {
	sum := sha1.Sum([]byte(source))
	return script{source, hex.EncodeToString(sum[:])}
}

// A call is one execution of a script that answers whole numbers. The client
// must not repeat it: an answer that is lost says nothing about whether the ask
// was booked, and booked twice it would be. MaxRetries is not enough for that: a
// cluster client goes by MaxRedirects, which it needs for slots that move.
type call struct {
	*goredis.IntSliceCmd
	args []any
}

// newCall makes one that sends only the hash; args are the whole command.
func newCall(ctx context.Context, args []any) *call {
	return &call{goredis.NewIntSliceCmd(ctx, args...), args}
}

// inFull makes it anew, to be sent with the text of its script.
func (c *call) inFull(ctx context.Context, s *script) {
	c.args[0], c.args[1] = "eval", s.source
	c.IntSliceCmd = goredis.NewIntSliceCmd(ctx, c.args...)
}

// NoRetry is what the client asks before it sends a command once more.
func (c *call) NoRetry() bool { return true }

// Clone keeps the promise of NoRetry, which the embedded one would lose.
func (c *call) Clone() goredis.Cmder {
	return &call{c.IntSliceCmd.Clone().(*goredis.IntSliceCmd), c.args}
}
