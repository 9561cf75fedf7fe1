package admin

import "testing"

func TestReplicas(t *testing.T) {
	t.Parallel()
	in := start(t)
	got, err := in.client().ListReplicas(t.Context(), ListOptions{})
	if err != nil || len(got.Items) != 2 || got.Items[0].ID != "rep_1" || got.Items[0].Rules != 1 || !got.Items[0].SeenAt.Equal(testStart) {
		t.Fatalf("%+v %v", got, err)
	}
	if l := got.Items[0].Limits; l == nil || l.Lost != 2 || l.Late != 3 || l.Held != 0 || got.Items[1].Limits != nil {
		t.Errorf("limits %+v and %+v", l, got.Items[1].Limits)
	}
}

// TestDurable: a change says whether it is safe; what changes nothing says nothing.
func TestDurable(t *testing.T) {
	t.Parallel()
	in := start(t)
	created := in.do("POST", "/v1/keys", NewKey{Name: "k"})
	if got := created.header.Get(durableHeader); got != "true" {
		t.Errorf("create: %q", got)
	}
	id := into[CreatedKey](t, created).ID
	for _, want := range []string{"true", ""} {
		if got := in.do("POST", "/v1/keys/"+id+"/pause", nil).header.Get(durableHeader); got != want {
			t.Errorf("pause: %q, want %q", got, want)
		}
	}
}
