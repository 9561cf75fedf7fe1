package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"keygate/config"
	"keygate/proxy"
)

const (
	// adminDrain bounds the end of the management listener, whose requests are short.
	adminDrain = 5 * time.Second
	// tunnelsEvery lies between two looks at the WebSocket connections that are left.
	tunnelsEvery = 20 * time.Millisecond
)

// stop ends the proxy first: the management listener tells meanwhile that this
// instance is draining. Who asks it needs a moment to hear of that and to send
// nothing more; until then the proxy takes what comes.
func stop(ctx context.Context, c config.Config, gate *proxy.Proxy, log *zap.Logger, served *listeners) error {
	ctx, cancel := context.WithTimeout(ctx, c.DrainTimeout)
	defer cancel()
	pause(ctx, c.DrainDelay)
	var draining sync.WaitGroup
	for _, l := range served.proxy() {
		draining.Go(func() {
			if err := l.drain(ctx); err != nil {
				log.Warn("requests were cut off", zap.Error(err))
			}
		})
	}
	draining.Wait()
	if n := drainTunnels(ctx, gate); n > 0 {
		log.Warn("requests were cut off", zap.Error(fmt.Errorf("%d WebSocket connections were still open when the drain time ended", n)))
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), adminDrain)
	defer cancel()
	if err := served.management.drain(ctx); err != nil {
		log.Warn("requests were cut off", zap.Error(err))
	}
	log.Info("stopped")
	return nil
}

// drainTunnels waits for WebSocket connections, of which http.Server.Shutdown knows
// nothing, and returns how many are left when ctx ends.
func drainTunnels(ctx context.Context, gate *proxy.Proxy) (left int64) {
	for {
		if left = gate.Tunnels(); left == 0 || ctx.Err() != nil {
			return left
		}
		pause(ctx, tunnelsEvery)
	}
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}
