package proxy

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A request that keygate itself ended, because its key is revoked or its place is lost,
// was counted as one that its client had reset: enough of them closed the connection,
// with what else was on it.
func TestOnlyClientsReset(t *testing.T) {
	for _, c := range []struct {
		name   string
		cause  error // of the end of the context
		closes bool
	}{{"the client", nil, true}, {"a cut", errCut, false}, {"the stop", errStopping, false}, {"a lost place", errCutOff, false}} {
		near, far := net.Pipe()
		p := &Proxy{now: time.Now, resetFloods: newResetFloods(prometheus.NewRegistry())}
		ctx, cancel := context.WithCancelCause(WithConnection(context.Background(), near))
		cancel(c.cause)
		x := &exchange{proxy: p, request: request{r: (&http.Request{ProtoMajor: 2}).WithContext(ctx)}}
		for range resetsAtOnce + 10 {
			x.countReset()
		}
		if closed := near.SetDeadline(time.Time{}) != nil; closed != c.closes {
			t.Errorf("%s: closed is %v", c.name, closed)
		}
		_, _ = near.Close(), far.Close()
	}
}
