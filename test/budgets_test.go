package test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"keygate/internal/admin"
	"keygate/internal/store/redis/redistest"
)

const budgetPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
plans:
  strict: { limits: [{ name: hour, requests: 30, per: 1h }] }
  quota: { limits: [{ name: month, requests: 100, per: month, timezone: Europe/Zurich }] }
  open: { limits: [{ name: hour, requests: 30, per: 1h }], outage: { mode: open } }
routes:
  - { match: "/any", permission: any }
`

// leftOf is what one of the limits has left, by an answer's header.
func leftOf(t *testing.T, a answer) int {
	t.Helper()
	_, rest, _ := strings.Cut(a.header.Get("RateLimit"), ";r=")
	text, _, _ := strings.Cut(rest, ";")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%d, RateLimit: %s", a.status, a.header.Get("RateLimit"))
	}
	return n
}

// On the embedded store an orderly restart keeps what was spent exactly, and a
// kill -9 at least what was given of quotas.
func TestBudgetsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	g := start(t, settings{"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), budgetPolicy)})
	hour, month := g.newKey("hour", "--plan", "strict"), g.newKey("month", "--plan", "quota")
	spend := func(k admin.CreatedKey, want int) {
		t.Helper()
		if got := leftOf(t, g.wants(http.StatusOK, "/any", k.Secret)); got != want {
			t.Errorf("%s has %d left, want %d", k.Name, got, want)
		}
	}
	for i := range 5 {
		spend(hour, 29-i)
		spend(month, 99-i)
	}
	for i := range 3 {
		g.restart()
		spend(hour, 24-i)
		spend(month, 94-i)
	}
	for range 3 {
		before := leftOf(t, g.wants(http.StatusOK, "/any", month.Secret))
		g.kill9()
		g.start()
		if after := leftOf(t, g.wants(http.StatusOK, "/any", month.Secret)); after >= before || after < before-3 {
			t.Errorf("%d left before the crash and one request, %d after", before, after)
		}
	}
	spend(hour, 29) // windows start anew
	g.stop()
	g.env["KEYGATE_WAIT_AFTER_CRASH"] = "true"
	g.start()
	spend(hour, 28)
	g.kill9()
	g.start()
	g.refused(http.StatusServiceUnavailable, "Temporarily unavailable", "/any", hour.Secret)
	g.wants(http.StatusOK, "/any", month.Secret)
}

// A Redis that comes back without what it counted has strict plans wait and lets
// the others go on; one that has it all goes on at once.
func TestBudgetsOfARedisThatIsKilled(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]redistest.Options{"append-only file": {AOF: "always"}, "snapshot": {}} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, o)
			all := startReplicas(t, settings{"KEYGATE_POLICY": inFrontOf(newUpstream(t, nil), budgetPolicy)}, server.URL(), server.URL())
			hour, month, open := all[0].newKey("hour", "--plan", "strict"), all[0].newKey("month", "--plan", "quota"), all[0].newKey("open", "--plan", "open")
			for range 2 {
				for _, g := range all {
					for _, k := range []admin.CreatedKey{hour, month, open} {
						// On a busy machine the first question to Redis can come too late (503).
						eventually(t, k.Name+" is admitted", func() bool { return g.get("/any", k.Secret).status == http.StatusOK })
					}
				}
			}
			server.Do("SAVE")
			server.Kill()
			server.Start()
			deadline := time.Now().Add(20 * time.Second) // far less than the hour that is waited for after a loss
			for _, g := range all {
				goOn := []admin.CreatedKey{month, open}
				if name == "snapshot" {
					g.refused(http.StatusServiceUnavailable, "Temporarily unavailable", "/any", hour.Secret)
				} else {
					goOn = append(goOn, hour)
				}
				for _, k := range goOn {
					for g.get("/any", k.Secret).status != http.StatusOK {
						if time.Now().After(deadline) {
							t.Fatalf("%s is not admitted", k.Name)
						}
						time.Sleep(50 * time.Millisecond)
					}
				}
				if name == "snapshot" { // and still: it was not for want of a connection
					g.refused(http.StatusServiceUnavailable, "Temporarily unavailable", "/any", hour.Secret)
				}
			}
			if left := leftOf(t, all[0].wants(http.StatusOK, "/any", month.Secret)); left > 93 {
				t.Errorf("the quota has %d left", left)
			}
		})
	}
}
