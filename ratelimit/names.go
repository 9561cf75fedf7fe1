package ratelimit

import (
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"sync/atomic"
)

// sessionNames makes names that no replica has used before: 72 random bits for
// each process, and a number.
type sessionNames struct {
	prefix string
	used   atomic.Uint64
}

func newSessionNames() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // it never fails: it ends the process where it must
	return base64.RawURLEncoding.EncodeToString(b[:]) + "."
}

func (n *sessionNames) next() string {
	buf := make([]byte, 0, 32)
	buf = append(buf, n.prefix...)
	return string(strconv.AppendUint(buf, n.used.Add(1), 36))
}
