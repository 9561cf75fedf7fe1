// Package route decides which rule covers a request: patterns of host, method
// and path, compiled when a policy is loaded and immutable from then on.
package route

import (
	"strconv"
	"strings"
	"time"
)

// Rule says who may call what a pattern matches, and where it is forwarded to.
type Rule struct {
	Pattern Pattern
	// Upstream names where admitted requests go.
	Upstream string
	// Permissions are all needed. Empty if Any or Public is set.
	Permissions []string
	// Need holds the positions of Permissions in the catalogue of the policy
	// that the rule belongs to.
	Need []int
	// Any admits every valid key.
	Any bool
	// Public admits requests without a key, limited per client address.
	Public *Budget
	// Cost is what a request takes of the limits.
	Cost Cost
	// Organization and Space, where set, say where a request names them.
	Organization, Space *Binding
	// Forwarding of what was admitted.
	Forwarding
}

// Cost says what a request takes of every limit: Reserve units, 0 standing for one.
// Where Header is set, that header of the answer says what it came to; at most
// Max.
type Cost struct {
	Reserve, Max int64
	Header       string
}

// Budget is a number of requests per duration.
type Budget struct {
	Requests int
	Per      time.Duration
}

// String returns the budget as a policy file has it, such as "60/1m".
func (b Budget) String() string {
	per := b.Per.String()
	for _, zero := range [...]string{"m0s", "h0m"} { // 1h0m0s is 1h
		if strings.HasSuffix(per, zero) {
			per = per[:len(per)-2]
		}
	}
	return strconv.Itoa(b.Requests) + "/" + per
}

// Source is the part of a request that a Binding reads.
type Source uint8

// The parts of a request that can name an organization or a space.
const (
	FromPath Source = iota
	FromHeader
	FromQuery
)

// Binding says where a request names its organization or space.
type Binding struct {
	Source Source
	// Name of the path parameter, header (canonical form) or query parameter.
	Name string
}

// String returns the binding as a policy file has it, such as "path:org".
func (b Binding) String() string {
	switch b.Source {
	case FromHeader:
		return "header:" + b.Name
	case FromQuery:
		return "query:" + b.Name
	default:
		return "path:" + b.Name
	}
}
