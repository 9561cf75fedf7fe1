// Package pace says how long a slow peer is waited for.
package pace

import "time"

// Pace bounds the waiting for one peer: Wait in all, of which each piece that it sends
// or takes wins back the time that the piece would need at Rate, up to the whole. Only
// waiting counts: a peer that is waited for in nothing may be silent for ever, and who
// is faster than Rate has Wait before him at every moment. It is a token bucket of
// time, empty when the peer has been slower than Rate for Wait.
type Pace struct {
	Wait time.Duration // 0: no bound
	Rate int           // bytes a second; 0: every piece, however small, wins back all of Wait
}

// Left is for how long the peer is still waited for, of which left was there before a
// wait of waited for a piece of so many bytes. Where it is not positive the peer is too
// slow.
func (p Pace) Left(left, waited time.Duration, bytes int) time.Duration {
	switch {
	case p.Rate > 0:
		return min(p.Wait, left-waited+time.Duration(bytes)*time.Second/time.Duration(p.Rate))
	case bytes > 0:
		return p.Wait
	}
	return left - waited
}
