package redis

import (
	"time"

	goredis "github.com/redis/go-redis/v9"
)

func NewClient(url string) (goredis.UniversalClient, error) {
	o, err := goredis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = time.Second, time.Second, time.Second
	o.ContextTimeoutEnabled = true
	o.PipelinePoolSize = -1
	o.MaxRetries = 1
	return goredis.NewClient(o), nil
}
