package keys

import (
	"encoding/hex"

	"github.com/google/uuid"
)

// Prefixes of typed ids. They hold an underscore, which no slug may, so that an
// id and a slug are never taken for one another.
const (
	organizationPrefix = "org_"
	spacePrefix        = "spc_"
	accountPrefix      = "acc_"
	grantPrefix        = "grt_"
	keyPrefix          = "key_"
	auditPrefix        = "aud_"
)

// newID returns prefix and a UUIDv7 (RFC 9562, section 5.7) in hex: ids sort by
// the time they were made, which keeps indexes dense.
func newID(prefix string) string {
	id, err := uuid.NewV7()
	if err != nil {
		// Go's crypto/rand ends the process rather than return an error.
		panic("keys: no randomness: " + err.Error())
	}
	return prefix + hex.EncodeToString(id[:])
}
