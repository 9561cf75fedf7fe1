package proxy_test

import (
	"net/http"
	"testing"

	"keygate/internal/keys"
)

// A request without a body whose upstream has yet to answer, as in long polling, was
// cut when the answer came, however long after its key had ended.
func TestWaitingRequestIsCut(t *testing.T) {
	g := newGate(t, gateOptions{})
	arrived, left := make(chan struct{}, 1), make(chan struct{}, 1)
	g.upstream.answer = func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
		left <- struct{}{}
	}
	g.onBoth(func(t *testing.T, url string, client *http.Client) {
		k, secret := g.key(keys.NewKey{})
		answers := make(chan *http.Response, 1)
		go func() {
			res, err := client.Do(request(t, http.MethodGet, url+"/any/x", secret, nil))
			if err == nil {
				_ = res.Body.Close()
			}
			answers <- res
		}()
		<-arrived
		if _, err := g.service.RevokeKey(t.Context(), keys.System, k.ID); err != nil {
			t.Fatal(err)
		}
		g.proxy.CheckStreams(t.Context())
		res := <-answers
		if told := res != nil && res.StatusCode == http.StatusUnauthorized && res.Close; url == g.url && !told || url != g.url && res != nil { // or the stream is reset
			t.Errorf("it was answered %+v", res)
		}
		<-left
		waitFor(t, func() bool { return g.metric(`keygate_streams_cut_total{reason="key"}`) >= 1 })
	})
}
