package admin

import "testing"

func TestReplicas(t *testing.T) {
	in := start(t)
	got, err := in.client().ListReplicas(t.Context(), ListOptions{})
	if err != nil || len(got.Items) != 1 || got.Items[0].ID != "rep_1" || got.Items[0].Rules != 1 || !got.Items[0].SeenAt.Equal(testStart) {
		t.Fatalf("%+v %v", got, err)
	}
}
