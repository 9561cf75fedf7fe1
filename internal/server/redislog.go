package server

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

// redisLog takes what go-redis would print on its own: failed dials above all,
// which whoever waits for the answer hears of too.
type redisLog struct{ log *zap.Logger }

func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.log.Debug("go-redis: " + fmt.Sprintf(format, v...))
}

// quietRedis sends the log of go-redis, which has one for all clients, to ours.
func quietRedis(log *zap.Logger) { goredis.SetLogger(redisLog{log}) }
