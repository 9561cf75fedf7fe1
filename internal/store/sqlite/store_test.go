package sqlite

import (
	"testing"

	"keygate/internal/keys"
	"keygate/internal/store/storetest"
)

// openStore opens a store and closes it at the test's end.
func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		o := Options{Dir: t.TempDir(), KeepChanges: 5000}
		if t.Name() == "TestContract/FeedGap" {
			o.KeepChanges = 300
		}
		s := openStore(t, o)
		return storetest.Harness{Store: s, KeepChanges: o.KeepChanges, Reopen: func(t *testing.T) keys.Store {
			if err := s.Close(); err != nil {
				t.Fatalf("Close: %v", err)
			}
			return openStore(t, o)
		}}
	})
}
