package server

import (
	"context"
	"errors"
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
// nothing more; until then the proxy takes what comes: after that net/http closes
// connections of HTTP/1.1 with the request that they bring.
func stop(ctx context.Context, c config.Config, gate *proxy.Proxy, log *zap.Logger, served *listeners) error {
	ctx, cancel := context.WithTimeout(ctx, c.DrainTimeout)
	defer cancel()
	pause(ctx, c.DrainDelay)
	left := make([]error, len(served.proxy())+1)
	var draining sync.WaitGroup
	for i, l := range served.proxy() {
		draining.Go(func() { left[i] = l.drain(ctx) })
	}
	draining.Wait()
	left[len(left)-1] = drainTunnels(ctx, gate)
	if errors.Join(left...) != nil {
		for _, err := range left {
			if err != nil {
				log.Warn("requests were cut off", zap.Error(err))
			}
		}
		gate.Dismiss(func() { closeAll(log, served.proxy()...) })
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), adminDrain)
	defer cancel()
	if err := served.management.drain(ctx); err != nil {
		log.Warn("requests were cut off", zap.Error(err))
		closeAll(log, served.management)
	}
	log.Info("stopped")
	return nil
}

// closeAll ends connections whatever is under way on them.
func closeAll(log *zap.Logger, all ...*listener) {
	for _, l := range all {
		if err := l.server.Close(); err != nil {
			log.Warn("a listener was not closed well", zap.String("listener", l.name), zap.Error(err))
		}
	}
}

// drainTunnels waits for WebSocket connections, of which http.Server.Shutdown knows
// nothing, at most until ctx ends.
func drainTunnels(ctx context.Context, gate *proxy.Proxy) error {
	for {
		left := gate.Tunnels()
		switch {
		case left == 0:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("%d WebSocket connections were still open when the drain time ended: %w", left, ctx.Err())
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
