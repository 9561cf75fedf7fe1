package route

import "time"

// CORS says which pages of other origins may read what a route answers (Fetch
// standard, "CORS protocol").
type CORS struct {
	// Origins are allowed, such as "https://app.example.com"; AnyOrigin alone
	// allows all.
	Origins []string
	// Methods are those that preflights are told of; empty: those of the path.
	Methods []string
	// Headers are what requests may have besides those that any page can send.
	Headers []string
	// Credentials lets pages send cookies and read answers to such requests. A key
	// in Authorization is a header and needs none of this.
	Credentials bool
	// MaxAge is how long a browser may remember a preflight.
	MaxAge time.Duration
}

// AnyOrigin allows the pages of every origin.
const AnyOrigin = "*"

// Defaults of CORS.
const (
	DefaultCORSMaxAge = 10 * time.Minute
	// MaxCORSMaxAge is what browsers cap it to.
	MaxCORSMaxAge = 24 * time.Hour
)

// DefaultCORSHeaders are those of Headers where a policy names none.
func DefaultCORSHeaders() []string { return []string{"Authorization", "Content-Type"} }
