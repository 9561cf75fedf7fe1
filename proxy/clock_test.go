package proxy_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keygate/internal/clocktest"
	"keygate/internal/keys"
)

const clockPolicy = `
version: 1
upstreams: { api: { targets: ["UPSTREAM"] } }
plans:
  free: { limits: [] } # of the organization: any number of keys
  tiny: { limits: [{ name: minute, requests: 3, per: 1m }, { name: burst, requests: 2, per: 1s }] }
routes:
  - { match: "/any/{rest...}", permission: any }
`

// A wall clock that is set back, by seconds or hours, while requests go on: nobody
// gets more than the limit in any window of time that really passed, nobody is told
// to wait for longer than a window, and who waits as long as told is let in.
func TestWallClockThatIsSetBack(t *testing.T) {
	g := newGate(t, gateOptions{policy: clockPolicy})
	began := g.clock()
	setBack := func(by time.Duration) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.now = clocktest.SetBack(g.now, by)
	}
	budgets := []struct {
		most int
		per  time.Duration
	}{{3, time.Minute}, {2, time.Second}}
	rapid.Check(t, func(rt *rapid.T) {
		_, secret := g.key(keys.NewKey{Plan: "tiny"})
		var admitted []time.Duration // when, since the beginning
		ask := func() int {
			a := g.get("GET", "/any/x", secret)
			switch wait, err := strconv.Atoi(a.Header.Get("Retry-After")); {
			case a.StatusCode == http.StatusOK:
				admitted = append(admitted, g.clock().Sub(began))
			case a.StatusCode != http.StatusTooManyRequests:
				rt.Fatalf("%d %s", a.StatusCode, a.body)
			case err != nil || wait < 1 || wait > 60:
				rt.Fatalf("Retry-After: %q", a.Header.Get("Retry-After"))
			default:
				return wait
			}
			return 0
		}
		for range rapid.IntRange(5, 30).Draw(rt, "steps") {
			switch rapid.IntRange(0, 3).Draw(rt, "step") {
			case 0:
				setBack(time.Duration(rapid.IntRange(1, 7200).Draw(rt, "back")) * time.Second)
			case 1:
				g.wait(time.Duration(rapid.IntRange(1, 90_000).Draw(rt, "on")) * time.Millisecond)
			default:
				if wait := ask(); wait > 0 && rapid.Bool().Draw(rt, "patient") {
					setBack(time.Duration(rapid.IntRange(0, 3600).Draw(rt, "meanwhile")) * time.Second)
					g.wait(time.Duration(wait) * time.Second)
					if again := ask(); again > 0 {
						rt.Fatalf("after %d s it is asked to wait for another %d", wait, again)
					}
				}
			}
		}
		for i := range admitted {
			for _, b := range budgets {
				if n := i + b.most; n < len(admitted) && admitted[n]-admitted[i] < b.per {
					rt.Fatalf("%d requests were admitted within %v, %d are allowed in %v", b.most+1, admitted[n]-admitted[i], b.most, b.per)
				}
			}
		}
	})

	// A key ends by the wall clock, as its expiry says; made by a clock that is then
	// set back it works at once, and has its former time before it.
	_, secret := g.key(keys.NewKey{})
	setBack(24 * time.Hour)
	if a := g.get("GET", "/any/x", secret); a.StatusCode != http.StatusOK {
		t.Errorf("a key of the future: %d %s", a.StatusCode, a.body)
	}
	format, err := keys.NewFormat(keys.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	if a := g.get("GET", "/any/x", format.Generate()); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("an unknown key: %d %s", a.StatusCode, a.body)
	}
}
