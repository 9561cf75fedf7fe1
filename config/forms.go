package config

import (
	"fmt"
	"math"
	"slices"

	"keygate/internal/keys"
	"keygate/ratelimit"
)

// The form of a policy, version 1.
var policyForm = form{
	{
		name: "version", required: true, missing: ": write version: 1",
		title: "Version", doc: "Version of the form that the file has.",
		shape: &shape{Type: "integer", Const: 1, words: "`1`"},
	},
	{
		name: "upstreams", title: "Upstreams", doc: "Where requests are forwarded to. A route that names no upstream goes to the only one of the file, if there is exactly one, and else to KEYGATE_UPSTREAM.",
		shape: namesTo("names to upstreams", name(), object("an upstream", upstreamForm)),
	},
	{
		name: "permissions", title: "Permissions", doc: "The catalogue: whatever a route, role, key or `implies` names must be in it. A name is resource:action; an entry without any field is `{}`.",
		shape: namesTo("names to entries", ownPermission(), object("an entry", permissionForm)),
	},
	{
		name: "roles", title: "Roles", doc: "Named sets of permissions and wildcards, which accounts hold for an organization or a space.",
		shape: namesTo("names to lists of permissions and wildcards, each once", name(), eachOnce("a role", roleGrant())),
	},
	{
		name: "plans", title: "Plans", doc: "What keys and organizations may spend. free, starter, pro and enterprise are built in.",
		shape: namesTo("names to plans", name(), object("a plan", planForm)),
	},
	{
		name: "routes", required: true, title: "Routes", doc: "What may be called, and by whom. The most specific route wins; two that could both win are an error.",
		shape: listOf("a list of at least one route", 1, maxItems, accessible(object("a route", routeForm))),
	},
}

var permissionForm = form{
	{name: "group", title: "Group", doc: "Heading under which the permission is shown where scopes are chosen.", shape: line(maxTitle)},
	{name: "title", title: "Title", doc: "What the permission is called there.", absent: "its name", shape: line(maxTitle)},
	{name: "description", title: "Description", doc: "What it allows.", shape: line(maxDescription)},
	{
		name: "administrative", title: "Administrative", doc: "Administrative permissions are matched by no wildcard but `*`.",
		absent: "`true` in the group `Admin`, else `false`", shape: boolean(),
	},
	{
		name: "implies", title: "Implies", doc: "What comes with this permission.",
		shape: eachOnce("a list of permissions and wildcards, each once", roleGrant()),
	},
}

var planForm = form{
	{
		name: "limits", required: true, missing: ": list them, or write [] for unlimited", // forgetting them must not mean unlimited
		title: "Limits", doc: "Limits that hold together: a request must fit all. `[]` is unlimited.",
		shape: listOf(fmt.Sprintf("a list of at most %d limits", keys.MaxLimits), 0, keys.MaxLimits, object("a limit", limitForm)),
	},
	{
		name: "max_keys", title: "Keys of an organization", doc: "Number of active keys that an organization can have.",
		absent: "no bound", shape: number(0, math.MaxInt32),
	},
	{
		name: "concurrent", title: "Requests in flight", doc: "How many requests of one key may be under way at the same time.",
		absent: "any number", shape: number(1, ratelimit.MaxConcurrent),
	},
	{
		name: "outage", title: "Outage", doc: "What holds while a shared Redis is away.",
		shape: object("a mapping", outageForm),
	},
}

var limitForm = form{
	{
		name: "name", required: true, title: "Name", doc: "What clients see in RateLimit headers; unique in its plan.",
		shape: text(fmt.Sprintf("1 to %d letters, digits, `_`, `-` and `.`", ratelimit.MaxName), fmt.Sprintf("[A-Za-z0-9._-]{1,%d}", ratelimit.MaxName), "minute"),
	},
	{
		name: "requests", required: true, title: "Requests", doc: "How many requests are admitted in any window of the length `per`, or in each calendar period. Each counts as much as its route's `cost`.",
		shape: number(1, ratelimit.MaxQuota),
	},
	{
		name: "per", required: true, title: "Window", doc: "Length of the window, or the calendar period.",
		shape: text("whole seconds from `1s` to `744h`, or `day` or `month`", "day|month|"+rxDuration, "1m", "1h", "24h", "month"),
	},
	{
		name: "timezone", title: "Time zone", doc: "Whose days and months are counted. Only with `per: day` and `per: month`.",
		standard: "UTC", shape: text("a name of the IANA database", `[A-Za-z0-9_+/-]+`, "Europe/Zurich", "UTC"),
	},
	{
		name: "shared", title: "Shared", doc: "One budget for all keys of the organization, and not one for each key.",
		standard: "false", shape: boolean(),
	},
}

var outageForm = form{
	{
		name: "mode", title: "Mode", doc: "`strict`: requests that cannot be counted get 503; `open`: each replica admits up to the limits by itself.",
		standard: "strict", shape: oneWordOf(outageModes...),
	},
	{
		name: "keys", title: "Known keys", doc: "How long a key that a replica has in memory serves without being looked up.",
		standard: "0s", shape: duration("`0s` to `24h`", "0s", "5m"),
	},
}

var outageModes = []string{"strict", "open"}

var routeForm = slices.Concat(form{
	{
		name: "match", required: true, title: "Match", doc: "Which requests the route covers. `{x}` stands for one segment, `{x...}` for the rest of the path; GET brings HEAD along; without methods it is all of them, without a host all hosts.",
		shape: match(),
	},
	{
		name: "upstream", title: "Upstream", doc: "Which upstream requests are forwarded to.",
		absent: "the only one, else KEYGATE_UPSTREAM", shape: name(),
	},
	{
		name: "permission", title: "Permission", doc: "What a key needs: one permission, all of a list, or `any` for every valid key.", absent: "required, or `public`",
		shape: eitherOf("a permission, a list of them, or `any`", oneWordOf(anyKey), permissionName(), eachOnce("a list", permissionName())),
	},
	{
		name: "public", title: "Public", doc: "Admits requests without a key. Not with `permission`, `organization` or `space`.",
		shape: object("a mapping", publicForm),
	},
	{
		name: "organization", title: "Organization", doc: "Where the request names the organization that the key must belong to.",
		shape: binding(),
	},
	{
		name: "space", title: "Space", doc: "Where the request names the space; without `organization`, a space of the key's own organization.",
		shape: binding(),
	},
	{
		name: "cost", title: "Cost", doc: "How much of every limit a request takes, or what header of the answer says so. More than a limit of any plan is an error. Not with `public`.",
		standard: "1", shape: costShape(),
	},
}, forwardingForm, reserved(refused, "allow_paths", "report_only"))

var publicForm = form{
	{
		name: "per_address", required: true, title: "Budget of an address", doc: "How many requests each client address may send per duration.",
		shape: text("`REQUESTS/DURATION`", `[1-9]\d*/`+rxDuration, "60/1m"),
	},
}

var costForm = form{
	{
		name: "header", required: true, title: "Header", doc: "Header of the upstream's answer that says what the request cost, in whole units.",
		shape: text("a header name", "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", "X-Cost"),
	},
	{
		name: "reserve", required: true, title: "Reserve", doc: "What a request takes before its cost is known.",
		shape: cost(),
	},
	{
		name: "max", required: true, title: "Maximum", doc: "The most that a request can come to; what the header says above that counts as this.",
		shape: cost(),
	},
}

func costShape() *shape {
	s := eitherOf("a number, or a mapping", cost(), object("a mapping", costForm))
	s.fields, s.inside = costForm, "."
	return s
}

func cost() *shape { return number(1, math.MaxInt32) }
