package admin

import (
	"encoding/json"
	"fmt"

	"keygate/internal/keys"
)

// show turns what the service returns into what an answer shows, and its
// version where it has one.
func (h *handler) show(result any) (shown any, version int64) {
	switch r := result.(type) {
	case keys.Key:
		return keyOf(&r, h.Now()), r.Version
	case keys.Organization:
		return organizationOf(&r), r.Version
	case keys.Space:
		return spaceOf(&r), r.Version
	case keys.Member:
		return accountOf(&r), r.Account.Version
	case keys.Grant:
		return grantOf(&r), 0
	case []keys.Imported:
		return reportOf(r), 0
	}
	panic(fmt.Sprintf("admin: nothing shows a %T", result)) // every change's result is above
}

// shown is show for an answer, which gets the version as its ETag.
func shown[T any](h *handler, by *call, result any) T {
	out, version := h.show(result)
	if version > 0 {
		by.header.Set("ETag", etag(version))
	}
	return out.(T)
}

func overridesOf(raw json.RawMessage) *Overrides {
	o, err := keys.ParseOverrides(raw)
	if err != nil || o.IsZero() {
		return nil // keys with unreadable ones are refused, and the log says why
	}
	out := &Overrides{MaxKeys: o.MaxKeys}
	out.Limits = limitsOf(o)
	return out
}

func limitsOf(o keys.Overrides) (out []OverrideLimit) {
	for i := range o.Limits {
		l := &o.Limits[i]
		per, zone := l.Terms()
		out = append(out, OverrideLimit{Name: l.Name, Requests: l.Quota, Per: per, Timezone: zone, Shared: l.Shared})
	}
	return out
}
