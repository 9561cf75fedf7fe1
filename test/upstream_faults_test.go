package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keygate/test/faultproxy"
)

// faultyPolicy bounds every phase, so that every answer has a time by which it is
// there: the total.
const faultyPolicy = `
version: 1
upstreams:
  api: { targets: ["SCHEME://UPSTREAM"], timeouts: { connect: 300ms, first_byte: 500ms, idle: 500ms, total: 2s } }
plans: { none: { limits: [] } }
routes:
  - { match: "/{path...}", permission: any }
`

const (
	faultyTotal  = 2 * time.Second
	normalWithin = 2 * time.Second
	// onTime is by how much the machine may be late for what fails then to be the
	// gateway's doing: a third of the shortest time-out. A request waits for several
	// turns on a processor.
	onTime       = 100 * time.Millisecond
	turns        = 5
	watched      = 3 * time.Second
	largeAnswer  = 1 << 20
	largeRequest = 256 << 10
)

// faultyTraffic is what clients send while the way to the upstream is disturbed.
type faultyTraffic struct {
	g       *gateway
	ruler   *ruler
	key     string
	posts   atomic.Int64
	arrived sync.Map // number of a POST to how often it arrived

	mu       sync.Mutex
	statuses map[string]int
	lastBad  time.Time // when the last request began that was not answered as it should be
	wrong    string
	excused  int // bad answers while the machine was late
}

func (f *faultyTraffic) serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/large":
		piece := bytes.Repeat([]byte("x"), 32<<10)
		for range largeAnswer / len(piece) {
			_, _ = w.Write(piece)
		}
	case "/post":
		times, _ := f.arrived.LoadOrStore(r.Header.Get("Idempotency-Key"), new(atomic.Int64))
		times.(*atomic.Int64).Add(1)
		n, err := io.Copy(io.Discard, r.Body)
		if err == nil && n != largeRequest {
			f.fault("a body of %d bytes looked whole to the upstream", n)
		}
		_, _ = io.WriteString(w, "posted")
	default:
		_, _ = io.WriteString(w, "hello")
	}
}

func (f *faultyTraffic) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wrong == "" {
		f.wrong = fmt.Sprintf(format, args...)
	}
}

// ask sends one request, of one of the kinds.
func (f *faultyTraffic) ask(c *http.Client, kind int) {
	method, path, body, size := http.MethodGet, "/x", io.Reader(nil), len("hello")
	key := ""
	switch kind % 3 {
	case 1:
		path, size = "/large", largeAnswer
	case 2:
		method, path, size = http.MethodPost, "/post", len("posted")
		body = strings.NewReader(strings.Repeat("x", largeRequest))
		key = fmt.Sprint("post-", f.posts.Add(1))
	}
	began := time.Now()
	a, err := try(c, method, f.g.proxy+path, f.key, body, func(r *http.Request) {
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
	})
	took := time.Since(began)
	result := fmt.Sprint(a.status)
	switch {
	case err != nil && (a.status == http.StatusOK || errors.Is(err, io.EOF)):
		result = "broken off" // after it had begun, perhaps before any of it was sent
	case err != nil:
		f.fault("%s %s: %d, %v", method, path, a.status, err)
	case a.status == http.StatusOK && len(a.body) != size:
		f.fault("%s %s: %d of %d bytes looked whole", method, path, len(a.body), size)
	case a.status != http.StatusOK && a.status != http.StatusBadGateway && a.status != http.StatusGatewayTimeout:
		f.fault("%s %s: %d %s", method, path, a.status, a.body)
	}
	late := f.ruler.late(began)
	if took > faultyTotal+time.Second+turns*late {
		f.fault("%s %s took %v, in which %v are allowed; the machine was late by %v", method, path, took, faultyTotal, late)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses[method+" "+path+" "+result]++
	switch {
	case err == nil && a.status == http.StatusOK:
	case late >= onTime:
		f.excused++
	case began.After(f.lastBad):
		f.lastBad = began
	}
}

// Whatever the network does to the connections between gateway and upstream,
// clients get the documented statuses in the documented time, nothing that is cut
// looks whole, no POST arrives twice, and afterwards all is as before.
func TestUpstreamNetworkFaults(t *testing.T) {
	for _, scheme := range []string{"http", "h2c"} {
		t.Run(scheme, func(t *testing.T) { t.Parallel(); testUpstreamNetworkFaults(t, scheme) })
	}
}

func testUpstreamNetworkFaults(t *testing.T, scheme string) {
	length := time.Second
	if full() {
		length = 8 * time.Second
	}
	f := &faultyTraffic{statuses: make(map[string]int)}
	api := httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	api.Config.Protocols = new(http.Protocols)
	api.Config.Protocols.SetHTTP1(scheme == "http")
	api.Config.Protocols.SetUnencryptedHTTP2(scheme == "h2c")
	api.Start()
	t.Cleanup(func() {
		api.CloseClientConnections() // a gateway that failed may still hold some
		api.Close()
	})
	between := faultproxy.Start(t, api.Listener.Addr().String())
	f.g = start(t, settings{
		"KEYGATE_POLICY":       strings.NewReplacer("SCHEME", scheme, "UPSTREAM", between.Addr()).Replace(faultyPolicy),
		"KEYGATE_DEFAULT_PLAN": "none",
	})
	f.key = f.g.newKey("client").Secret
	f.ruler = newRuler(t, f.g)
	c := newClient(t)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					f.ask(c, i)
				}
			}
		})
	}
	time.Sleep(length)
	before := f.g.footprint()
	for _, fault := range []faultproxy.Fault{
		faultproxy.Delay, faultproxy.Drop, faultproxy.Reset, faultproxy.HalfOpen, faultproxy.Cut, faultproxy.Slow, faultproxy.BlackHole,
	} {
		f.mu.Lock()
		f.statuses, f.excused = make(map[string]int), 0
		f.mu.Unlock()
		between.Set(fault)
		time.Sleep(length)
		if a := f.g.do(http.MethodGet, f.g.management+"/readyz", "", ""); a.status != http.StatusOK {
			t.Errorf("%s: /readyz: %d", fault, a.status)
		}
		between.Heal()
		healed := time.Now()
		time.Sleep(watched)
		f.mu.Lock()
		after := f.lastBad.Sub(healed)
		t.Logf("%-20s %v; the last bad one began %v after it ended; %d more while the machine was late", fault, f.statuses, after.Round(time.Millisecond), f.excused)
		bad := 0
		for name, n := range f.statuses {
			if !strings.HasSuffix(name, " 200") {
				bad += n
			}
		}
		f.mu.Unlock()
		if after > normalWithin {
			t.Errorf("%s: it took %v until all was normal", fault, after)
		}
		if bad == 0 && fault != faultproxy.Delay {
			t.Errorf("%s made no difference: it was none", fault)
		}
	}
	close(stop)
	clients.Wait()
	c.CloseIdleConnections()
	if f.wrong != "" {
		t.Error(f.wrong)
	}
	twice := 0
	f.arrived.Range(func(_, times any) bool {
		if times.(*atomic.Int64).Load() > 1 {
			twice++
		}
		return true
	})
	if twice > 0 {
		t.Errorf("%d of %d POSTs arrived twice", twice, f.posts.Load())
	}
	f.g.settles(t, before)
	f.g.stop()
	eventually(t, "no connection to the upstream is left", func() bool { return between.Connections() == 0 })
}
