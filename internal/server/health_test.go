package server

import (
	"encoding/json"
	"strings"
	"testing"

	"keygate/ratelimit"
)

// /readyz says of limits what an operator must know, and nothing while all is well.
func TestLimitsInReadiness(t *testing.T) {
	var s ratelimit.Stats
	body := func() string {
		text, err := json.Marshal(readiness{Limits: limitSigns(&s)})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := body(); strings.Contains(got, "limits") {
		t.Errorf("there is something to say of limits that are as they should be: %s", got)
	}
	s.Trips.Add(5)
	s.Lost.Add(2)
	s.Degraded.Add(3)
	s.Late.Add(1)
	if got, want := body(), `"limits":{"signs_of_loss":2,"clock_steps":0,"held_after_loss":0,"decided_alone":3,"late":1}`; !strings.Contains(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
}
