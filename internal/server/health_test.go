package server

import (
	"encoding/json"
	"testing"

	"keygate/ratelimit"
)

// /readyz says of limits what an operator must know, and nothing while all is well.
func TestLimitsInReadiness(t *testing.T) {
	var s ratelimit.Stats
	if newLimitsStatus(&s) != nil {
		t.Error("there is something to say of limits that are as they should be")
	}
	s.Trips.Add(5)
	s.Lost.Add(2)
	s.Degraded.Add(3)
	got, err := json.Marshal(readiness{Limits: newLimitsStatus(&s)}.Limits)
	if want := `{"signs_of_loss":2,"clock_steps":0,"held_after_loss":0,"decided_alone":3}`; err != nil || string(got) != want {
		t.Errorf("%s, want %s; %v", got, want, err)
	}
}
