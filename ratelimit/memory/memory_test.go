package memory

import (
	"testing"

	"keygate/ratelimit/ledgertest"
)

func TestContract(t *testing.T) {
	ledgertest.Run(t, func(*testing.T) ledgertest.Harness {
		l, c := newLedger()
		return ledgertest.Harness{Ledger: l, Advance: c.advance, Holders: l.Holders, Lose: l.Lose}
	})
}
