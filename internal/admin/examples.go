package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"keygate/internal/problem"
)

// The examples of the API's description. A test holds their ids and times to
// the forms that real ones have.
var (
	exampleTime    = time.Date(2026, time.March, 2, 9, 30, 0, 0, time.UTC)
	exampleLater   = time.Date(2026, time.March, 9, 17, 5, 12, 0, time.UTC)
	exampleExpiry  = time.Date(2027, time.March, 2, 9, 30, 0, 0, time.UTC)
	exampleOrgID   = "org_01980c5e6f117d0aa3b47c1e92d5f806"
	exampleSpaceID = "spc_01980c5e71a07b44b6e0d92f3c8a1157"
	exampleCursor  = encodeCursor("keys", "key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35")

	exampleNewKey = NewKey{
		Name: "billing service", Description: "Reads invoices every night.", Organization: "acme",
		Permissions: []string{"read:all"}, AllowedCIDRs: []string{"192.0.2.0/24"}, Expires: "1y",
	}
	exampleKey = Key{
		ID: "key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35", Name: "billing service", Description: "Reads invoices every night.",
		Prefix: "kg_live", LastFour: "T4m9", Status: "active", Permissions: []string{"read:all"}, Titles: map[string]string{"read:all": "Read everything"},
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
	exampleAccount    = Account{
		ID: "acc_01980c5e75c27e19a1f36b0d84e9c27a", Organization: exampleOrgID, Name: "Ada Lovelace", Email: "ada@example.com",
		Grants: []Grant{exampleGrant}, CreatedAt: exampleTime, UpdatedAt: exampleTime,
	}
	exampleGrant            = Grant{ID: "grt_01980c5e75c37a52b8d41f7e06a39c51", Organization: exampleOrgID, Role: "owner", CreatedAt: exampleTime}
	exampleNewGrant         = NewGrant{Role: "owner"}
	exampleAccountEdit      = AccountEdit{Email: text("ada@example.org")}
	exampleSpaceEdit        = SpaceEdit{Name: text("Research and development")}
	exampleOrganizationEdit = OrganizationEdit{
		Plan: text("pro"), Overrides: &Overrides{Limits: []OverrideLimit{{Name: "minute", Requests: 5000, Per: "1m"}}},
	}
	exampleKeyEdit    = KeyEdit{Name: text("billing service"), Expires: text("90d")}
	exampleRotation   = Rotation{Overlap: "24h"}
	exampleRotatedKey = func() CreatedKey {
		k := exampleCreatedKey
		k.RotatedAt, k.UpdatedAt = exampleLater, exampleLater
		k.Former = &FormerSecret{Prefix: "kg_live", LastFour: "q7Zk", CreatedAt: exampleTime, EndsAt: exampleLater.Add(24 * time.Hour)}
		return k
	}()
	exampleImportedKey = ImportedKey{
		NewKey: NewKey{Name: "legacy client", Organization: "acme", Permissions: []string{"read:all"}},
		Hash:   "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", Prefix: "sk_live_", LastFour: "9aF2",
	}
	exampleImport       = Import{Form: &Form{Prefix: "sk_live_", Min: 40, Max: 40}, Keys: []ImportedKey{exampleImportedKey}}
	exampleImportReport = ImportReport{Imported: 1, Items: []ImportItem{{ID: exampleKey.ID}}}
	exampleQuestion     = ExplainQuestion{Question: Question{Method: "POST", Path: "/v1/query"}, KeyID: exampleKey.ID}
	exampleExplanation  = Explanation{
		Status: 403, Error: "Insufficient permissions", Detail: "Insufficient permissions for operation POST /v1/query: the API key lacks query:execute.",
		Key: exampleKey.ID, Rule: &ExplainedRule{Match: "POST /v1/query", Upstream: "vault", Permissions: []string{"query:execute"}},
		Checks:   []Check{{Name: "route", Result: "pass"}, {Name: "key", Result: "pass"}, {Name: "scope", Result: "fail", Detail: "The route needs query:execute."}},
		Required: []string{"query:execute"}, Granted: []string{"database:read"}, Missing: []string{"query:execute"}, Plan: "pro",
		Limits: []ExplainedLimit{{Name: "minute", Requests: 2000, Per: "1m", Remaining: 1999, Reset: 31}},
	}
	exampleTest    = TestQuestion{Permission: "database:read"}
	exampleKeyTest = KeyTest{
		ID: exampleKey.ID, Name: exampleKey.Name, Status: "active", Works: true, Scopes: []string{"database:read"},
		Permission: &Held{Name: "database:read", Held: true},
	}
	exampleAuditEntry = AuditEntry{
		ID: "aud_01980c5e75c47c61b2e89a3f54d07e16", At: exampleLater, Action: "key.pause", Actor: "key_01980c5e6f2a7d10a4c58e2b97f3061d",
		ActorAccount: "acc_01980c5e6f2b7e21b5d69f3ca8041f72", Address: "192.0.2.17", RequestID: "01980c5e-75c4-7c61-b2e8-9a3f54d07e17",
		Kind: "key", Target: exampleKey.ID, Organization: exampleOrgID, After: json.RawMessage(`{"id":"` + exampleKey.ID + `"}`),
	}
	exampleAuditLine = func() string {
		line, err := json.Marshal(exampleAuditEntry)
		if err != nil {
			panic("admin: " + err.Error()) // our own type
		}
		return string(line) + "\n"
	}()
	exampleCaller     = Caller{ID: exampleKey.ID, Name: exampleKey.Name, Account: exampleKey.Account, Organization: exampleOrgID, Permissions: []string{"keygate:keys-read"}}
	examplePermission = Permission{Name: "database:read", Group: "Read", Title: "Read databases", Description: "Read data from databases"}
	exampleRole       = Role{Name: "viewer", Permissions: []string{"read:all"}, Expanded: []string{"database:read", "read:all"}}
	examplePlan       = Plan{Name: "free", Default: true, Limits: []OverrideLimit{{Name: "minute", Requests: 100, Per: "1m"}}}
	exampleReplica    = Replica{ID: "rep_01980c5e75c87d33b0a7c9e45f126d80", Name: "gateway-7d9f", Version: "0.1.0", Rules: 3, StartedAt: exampleTime, SeenAt: exampleLater, Limits: &LimitSigns{Late: 3}}
)

func text(s string) *string { return &s }

// exampleRequestID is that of all examples of errors.
const exampleRequestID = "01980c5e-7d2a-7c3f-9b1e-4d6a8f0c2b35"

// exampleProblem is an answer with this status.
func exampleProblem(status int) *problem.Problem {
	c := &call{id: exampleRequestID}
	p := c.problem(status, exampleDetail[status])
	switch status {
	case http.StatusUnauthorized:
		p.Error = "API key has been revoked"
	case http.StatusForbidden:
		p.Error, p.Required, p.Granted = "Insufficient permissions", []string{"keygate:keys-write"}, []string{"keygate:keys-read"}
	case http.StatusUnprocessableEntity:
		p = c.invalid([]problem.FieldError{{Pointer: "#/plan", Field: "plan", Detail: exampleDetail[status]}})
	case http.StatusTooManyRequests:
		p.Type, p.ViolatedPolicies = problem.TypeQuotaExceeded, []string{managementLimit}
	}
	return p
}

var exampleDetail = map[int]string{
	http.StatusBadRequest:            "The request has no body: send a JSON object.",
	http.StatusRequestTimeout:        "The body did not arrive in time.",
	http.StatusUnauthorized:          "The API key was revoked. Use another one, or ask the owner of the account for one.",
	http.StatusForbidden:             "Insufficient permissions for operation POST /v1/keys: the API key lacks keygate:keys-write.",
	http.StatusNotFound:              `No key has the id "key_01980c5e7d2a7c3f9b1e4d6a8f0c2b35".`,
	http.StatusConflict:              `Organization with slug "acme" exists already.`,
	http.StatusPreconditionFailed:    `Somebody changed the key since it was read: its version is "3" by now. Look at it again and decide anew.`,
	http.StatusRequestEntityTooLarge: "The body is larger than 1048576 bytes.",
	http.StatusUnsupportedMediaType:  "The body must be JSON: send Content-Type: application/json.",
	http.StatusUnprocessableEntity:   `is not a plan of the policy; there are enterprise, free, pro, starter (given: "gold")`,
	http.StatusTooManyRequests:       "This API key sends more requests than the management API allows. Try again in 1 s.",
	http.StatusInternalServerError:   panicDetail,
	http.StatusServiceUnavailable:    "The store could not be asked at the moment. Try again shortly.",
}
