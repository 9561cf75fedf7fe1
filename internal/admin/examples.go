package admin

import "time"

// The examples of the API's description. A test holds their ids and times to
// the forms that real ones have.
var (
	exampleTime    = time.Date(2026, time.March, 2, 9, 30, 0, 0, time.UTC)
	exampleLater   = time.Date(2026, time.March, 9, 17, 5, 12, 0, time.UTC)
	exampleExpiry  = time.Date(2027, time.March, 2, 9, 30, 0, 0, time.UTC)
	exampleOrgID   = "org_01980c5e6f117d0aa3b47c1e92d5f806"
	exampleSpaceID = "spc_01980c5e71a07b44b6e0d92f3c8a1157"
	exampleCursor  = encodeCursor("key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35")

	exampleNewKey = NewKey{
		Name: "billing service", Description: "Reads invoices every night.", Organization: "acme",
		Permissions: []string{"read:all"}, AllowedCIDRs: []string{"192.0.2.0/24"}, Expires: "1y",
	}
	exampleKey = Key{
		ID: "key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35", Name: "billing service", Description: "Reads invoices every night.",
		Prefix: "kg_live", LastFour: "T4m9", Status: "active", Permissions: []string{"read:all"},
		Organization: exampleOrgID, Account: "acc_01980c5e6f117d0aa3b47c1e92d5f806", AllowedCIDRs: []string{"192.0.2.0/24"},
		CreatedAt: exampleTime, UpdatedAt: exampleTime, ExpiresAt: exampleExpiry,
	}
	exampleCreatedKey = CreatedKey{Key: exampleKey, Secret: "kg_live_" + "<30 characters and a checksum of 6>"}
	examplePausedKey  = func() Key {
		k := exampleKey
		k.Status, k.PausedAt, k.UpdatedAt = "paused", exampleLater, exampleLater
		return k
	}()
	exampleRevokedKey = func() Key {
		k := exampleKey
		k.Status, k.RevokedAt, k.UpdatedAt = "revoked", exampleLater, exampleLater
		return k
	}()

	exampleNewOrganization = NewOrganization{Slug: "acme", Name: "Acme Inc.", Plan: "pro"}
	exampleOrganization    = Organization{ID: exampleOrgID, Slug: "acme", Name: "Acme Inc.", Plan: "pro", CreatedAt: exampleTime, UpdatedAt: exampleTime}

	exampleNewSpace = NewSpace{Organization: "acme", Slug: "research", Name: "Research"}
	exampleSpace    = Space{ID: exampleSpaceID, Organization: exampleOrgID, Slug: "research", Name: "Research", CreatedAt: exampleTime, UpdatedAt: exampleTime}

	exampleNewAccount = NewAccount{Name: "Ada Lovelace", Email: "ada@example.com", Organization: "acme", Role: "owner"}
	exampleAccount    = Account{ID: "acc_01980c5e75c27e19a1f36b0d84e9c27a", Organization: exampleOrgID, Name: "Ada Lovelace", Email: "ada@example.com", CreatedAt: exampleTime, UpdatedAt: exampleTime}
	exampleReplica    = Replica{ID: "rep_01980c5e75c87d33b0a7c9e45f126d80", Name: "gateway-7d9f", Version: "0.1.0", Rules: 3, StartedAt: exampleTime, SeenAt: exampleLater}

	exampleCreatedAccount = CreatedAccount{Account: exampleAccount, Grants: []Grant{{ID: "grt_01980c5e75c37a52b8d41f7e06a39c51", Organization: exampleOrgID, Role: "owner"}}}
)
