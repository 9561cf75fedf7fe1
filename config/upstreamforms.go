package config

import (
	"fmt"
	"math"

	"keygate/proxy/route"
	"keygate/proxy/upstream"
)

// The forms of where requests go, and how.
var upstreamForm = form{
	{
		name: "targets", required: true, title: "Targets", doc: "Places to which path and query of the request are added. `h2c` is HTTP/2 without TLS; with `https` both sides agree on HTTP/2 or HTTP/1.1.",
		shape: listOf(fmt.Sprintf("a list of 1 to %d `http`, `https` or `h2c` URLs without credentials, query and fragment", upstream.MaxTargets), 1, upstream.MaxTargets, target()).unique(),
	},
	{
		name: "balance", title: "Balance", doc: "How a target is chosen: one after the other, or the one with fewer requests under way of two chosen at random.",
		standard: "round_robin", shape: oneWordOf(balances...),
	},
	{
		name: "health", title: "Health checks", doc: "Asks each target whether it is well: 3 failures in a row take it out, 2 successes put it back.",
		absent: "no checks; only requests tell", shape: object("a mapping", healthForm),
	},
	{
		name: "timeouts", title: "Time-outs", doc: "Bounds of the phases of a request, for routes that set none of their own; `0s` is no bound.",
		shape: object("a mapping", timeoutsForm),
	},
	{
		name: "tls", title: "TLS", doc: "How https targets are talked to. The files are read when the policy is loaded, and when they change.",
		shape: object("a mapping", tlsForm),
	},
	{
		name: "max_concurrent", title: "Requests under way", doc: "How many requests there may be at a time in this replica; further ones are answered 503. `0` is no bound.",
		standard: "0", shape: number(0, math.MaxInt32),
	},
	{
		name: "breaker", title: "Circuit breaker", doc: "Answers 503 at once while too many requests fail: no answer, or 502, 503 or 504. `{}` takes all values as they are here.",
		absent: "none", shape: object("a mapping", breakerForm),
	},
	{
		name: "retry_budget", title: "Retry budget", doc: "How many retries there may be, as a share of the requests; 10 are allowed besides.",
		standard: "20%", shape: percentage(0),
	},
}

var healthForm = form{
	{
		name: "type", title: "Type", doc: "`http` asks for `path` and wants 2xx; `tcp` wants a connection; `grpc` asks the gRPC health service.",
		standard: upstream.HTTPCheck, shape: oneWordOf(healthTypes...),
	},
	{
		name: "path", title: "Path", doc: "What an http check asks for, without the path of the target.", absent: "required for `http`",
		shape: text("a path", "/[!\"$-~]*", "/healthz"),
	},
	{name: "service", title: "Service", doc: "What a grpc check asks about.", absent: "the whole server", shape: line(maxTitle)},
	{
		name: "every", title: "Interval", doc: "Time between two checks of a target, give or take a tenth. A check may take that long, and 5 s at most.",
		standard: upstream.DefaultHealthEvery.String(), shape: duration("`100ms` to `1h`", "5s"),
	},
}

var timeoutsForm = form{
	{
		name: "connect", title: "Connect", doc: "Until a connection to the target.",
		standard: route.DefaultTimeouts().Connect.String(), shape: duration("`0s` to `24h`", "1s"),
	},
	{
		name: "tls", title: "TLS handshake", doc: "Until TLS is agreed upon.",
		standard: route.DefaultTimeouts().TLS.String(), shape: duration("`0s` to `24h`", "2s"),
	},
	{
		name: "first_byte", title: "First byte", doc: "While the request is sent, until the upstream takes more of it; then until the header of the answer.",
		standard: "1m", shape: duration("`0s` to `24h`", "30s"),
	},
	{
		name: "idle", title: "Silence", doc: "How long an answer that has begun may pause; for WebSocket how long nothing may move either way.",
		standard: "0s", shape: duration("`0s` to `24h`", "5m"),
	},
	{
		name: "total", title: "Total", doc: "From the admission to the end of the answer, retries included.",
		standard: "0s", shape: duration("`0s` to `24h`", "2m"),
	},
}

var tlsForm = form{
	{name: "ca", title: "Authorities", doc: "Certificates that are trusted, in PEM, instead of the system's.", absent: "the system's", shape: file()},
	{name: "cert", title: "Client certificate", doc: "Certificate that keygate shows, in PEM, with those between it and its authority. Only with `key`.", shape: file()},
	{name: "key", title: "Client key", doc: "Private key of `cert`, in PEM.", shape: file()},
	{
		name: "server_name", title: "Server name", doc: "Host that the target's certificate must be for.", absent: "the target's host",
		shape: text("a host name", "[A-Za-z0-9.-]{1,253}", "api.internal"),
	},
}

var breakerForm = form{
	{
		name: "failures", title: "Failures", doc: "Share of failed requests that opens the breaker.",
		standard: fmt.Sprintf("%d%%", upstream.DefaultBreaker().Failures), shape: percentage(1),
	},
	{
		name: "requests", title: "Requests", doc: "How many requests there must be within the window before it opens.",
		standard: fmt.Sprint(upstream.DefaultBreaker().Requests), shape: number(1, maxBreakerRequests),
	},
	{
		name: "window", title: "Window", doc: "Time over which requests are counted.",
		standard: upstream.DefaultBreaker().Window.String(), shape: duration("`1s` to `1h`", "10s"),
	},
	{
		name: "open", title: "Open", doc: "How long all requests are refused before one may try; if it succeeds the breaker closes.",
		standard: upstream.DefaultBreaker().Open.String(), shape: duration("`100ms` to `1h`", "5s"),
	},
}

var forwardingForm = form{
	{
		name: "timeouts", title: "Time-outs", doc: "As those of the upstream, for this route.",
		absent: "the upstream's, each", shape: object("a mapping", timeoutsForm),
	},
	{
		name: "retries", title: "Retries", doc: "How many more attempts a request gets that the upstream did not answer, if it may be sent again.",
		standard: fmt.Sprint(route.DefaultRetries), shape: number(0, route.MaxRetries),
	},
	{
		name: "max_body", title: "Largest body", doc: "Larger requests are answered 413, as soon as that shows.",
		absent: "no bound", shape: text("a number with `B`, `KiB`, `MiB` or `GiB`", `[1-9]\d*(B|KiB|MiB|GiB)`, "64KiB", "10MiB"),
	},
	{
		name: "forward_key", title: "Forward the key", doc: "Leaves `Authorization` in the request that the upstream gets.",
		standard: "false", shape: boolean(),
	},
	{
		name: "rewrite", title: "Rewrite", doc: "Changes where in the upstream the request goes.",
		shape: object("a mapping", rewriteForm),
	},
	{
		name: "request_headers", title: "Request headers", doc: "Changes to what the upstream gets: first `remove`, then `set`, then `add`.",
		shape: object("a mapping", headersForm),
	},
	{
		name: "response_headers", title: "Response headers", doc: "Changes to the upstream's answers, not to keygate's own.",
		shape: object("a mapping", headersForm),
	},
	{
		name: "cors", title: "Pages of other origins", doc: "Lets pages of other origins read the answers, refusals too, and answers their preflights. It replaces what the upstream says of CORS.",
		absent: "preflights go to the upstream, without a key", shape: object("a mapping", corsForm),
	},
}

var corsForm = form{
	{
		name: "origins", required: true, title: "Origins", doc: "Origins whose pages are allowed. `*` stands alone and allows all.",
		shape: eachOnce("a list of origins, each once, or `*`", corsOrigin()),
	},
	{
		name: "methods", title: "Methods", doc: "What preflights are told that pages may send.", absent: "those of the path",
		shape: eachOnce("a list of methods, each once", oneWordOf(route.Methods()...)),
	},
	{
		name: "headers", title: "Headers", doc: "What pages may send besides the headers that any page can.", absent: "`Authorization` and `Content-Type`",
		shape: eachOnce("a list of names, each once", headerName()),
	},
	{
		name: "credentials", title: "Credentials", doc: "Lets pages send cookies along. API keys need it not. Not with the origin `*`.",
		standard: "false", shape: boolean(),
	},
	{
		name: "max_age", title: "Age", doc: "How long browsers may remember a preflight.",
		standard: "10m", shape: duration("whole seconds from `0s` to `24h`", "10m"),
	},
}

var rewriteForm = form{
	{name: "strip", title: "Strip", doc: "Taken from the beginning of the path; every path of the route must have it.", shape: pathPart("/v1")},
	{name: "prefix", title: "Prefix", doc: "Put before the path, after that of the target.", shape: pathPart("/internal")},
	{
		name: "host", title: "Host", doc: "Host that the upstream is told; `{host}` is the one that the client asked for.", absent: "the target's",
		shape: text("a host with a port perhaps, or `{host}`", `\{host\}|[A-Za-z0-9.-]{1,253}(:[1-9]\d{0,4})?`, "api.internal", "{host}"),
	},
}

var headersForm = form{
	{name: "set", title: "Set", doc: "Names to values, instead of what is there.", shape: namesTo("names to values", headerName(), headerValue())},
	{name: "add", title: "Add", doc: "Names to values, beside what is there.", shape: namesTo("names to values", headerName(), headerValue())},
	{name: "remove", title: "Remove", doc: "Names.", shape: eachOnce("a list of names, each once", headerName())},
}
