package route

import "time"

// Forwarding says how admitted requests are passed on and their answers back.
type Forwarding struct {
	Timeouts Timeouts
	// Retries is how many further attempts a request gets that the upstream gave
	// no answer to and that may be sent again.
	Retries int
	// MaxBody bounds the request's body in bytes; 0: no bound.
	MaxBody int64
	// ForwardKey leaves Authorization in the request.
	ForwardKey bool
	Rewrite    Rewrite
	// RequestHeaders and ResponseHeaders change what is passed on.
	RequestHeaders, ResponseHeaders Headers
	// CORS, if not nil, answers pages of other origins.
	CORS *CORS
}

// Timeouts bound the phases of a request at its upstream; 0 is no bound.
type Timeouts struct {
	// Connect is until a TCP connection, TLS until its handshake is done.
	Connect, TLS time.Duration
	// FirstByte is how long the upstream may take for the next piece of the
	// request's body, and after the last one for the header of its answer.
	FirstByte time.Duration
	// Idle is how long an answer that has begun, or a connection that was taken
	// over, may stand still.
	Idle time.Duration
	// Total is from the admission to the end of the answer, retries included.
	Total time.Duration
}

// Defaults where a policy says nothing.
const (
	DefaultRetries = 1
	MaxRetries     = 5
)

// DefaultTimeouts hold where a policy sets none. Idle and Total have no bound: a
// stream may be silent for hours, and TCP's keep-alive ends it if the other
// machine is gone.
func DefaultTimeouts() Timeouts {
	return Timeouts{Connect: 5 * time.Second, TLS: 5 * time.Second, FirstByte: 60 * time.Second}
}

// Rewrite changes where in the upstream a request goes.
type Rewrite struct {
	// Strip is taken from the beginning of the path, Prefix then put there.
	Strip, Prefix string
	// Host is what the upstream is told instead of the target's; ClientHost
	// stands for what the client said.
	Host string
}

// ClientHost is the placeholder of Rewrite.Host.
const ClientHost = "{host}"

// Headers are changes to the header of a request or an answer: first Remove, then
// Set, then Add.
type Headers struct {
	Remove   []string // in canonical form
	Set, Add []Field
}

// Field is one line of a header, its name in canonical form.
type Field struct{ Name, Value string }

// Empty reports whether there is nothing to change.
func (h *Headers) Empty() bool { return len(h.Remove)+len(h.Set)+len(h.Add) == 0 }
