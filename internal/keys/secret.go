package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"math/big"
	"strings"
)

// DefaultPrefix starts every key unless the operator chose another.
const DefaultPrefix = "kg_live"

const (
	base62        = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	randomLength  = 30 // log2(62^30) = 178 bits
	checkLength   = 6  // 62^6 > 2^32
	maxPrefix     = 32
	formLength    = 1 + randomLength + checkLength
	lastFourChars = 4
)

// Hash is the SHA-256 of a whole key. It is what the store keeps: 178 random
// bits cannot be searched, so neither salt nor a slow hash adds anything.
type Hash [sha256.Size]byte

// HashSecret hashes a presented or generated key.
func HashSecret(secret string) Hash {
	var buf [128]byte // every request comes here; converting the string would allocate
	if len(secret) > len(buf) {
		return sha256.Sum256([]byte(secret))
	}
	return sha256.Sum256(buf[:copy(buf[:], secret)])
}

// Format is the form of this instance's keys: <prefix>_<30 base62><6 base62
// checksum>, the checksum being CRC-32/IEEE over everything before it.
type Format struct{ prefix string }

// NewFormat checks the prefix: 1 to 32 letters, digits and single inner
// underscores.
func NewFormat(prefix string) (Format, error) {
	ok := prefix != "" && len(prefix) <= maxPrefix && !strings.HasPrefix(prefix, "_") &&
		!strings.HasSuffix(prefix, "_") && !strings.Contains(prefix, "__")
	for i := 0; ok && i < len(prefix); i++ {
		ok = prefix[i] == '_' || strings.IndexByte(base62, prefix[i]) >= 0
	}
	if !ok {
		return Format{}, fmt.Errorf("key prefix %q: allowed are 1 to %d letters, digits and single underscores between them", prefix, maxPrefix)
	}
	return Format{prefix: prefix}, nil
}

// Prefix returns what the keys start with, without the underscore that follows it.
func (f Format) Prefix() string { return f.prefix }

// Generate returns a new key with about 178 random bits.
func (f Format) Generate() string {
	var b strings.Builder
	b.Grow(len(f.prefix) + formLength)
	b.WriteString(f.prefix)
	b.WriteByte('_')
	for range randomLength {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(base62))))
		if err != nil {
			panic("keys: no randomness: " + err.Error()) // crypto/rand never returns one
		}
		b.WriteByte(base62[n.Int64()])
	}
	check := checksum(b.String())
	b.Write(check[:])
	return b.String()
}

// Length of every key, in bytes.
func (f Format) Length() int { return len(f.prefix) + formLength }

// Valid reports whether s has the form of this instance's keys, checksum
// included. It costs no lookup and says nothing about whether the key exists.
func (f Format) Valid(s string) bool {
	if len(s) != f.Length() || !f.Ours(s) {
		return false
	}
	for i := len(f.prefix) + 1; i < len(s); i++ {
		if !isBase62(s[i]) {
			return false
		}
	}
	body, check := s[:len(s)-checkLength], s[len(s)-checkLength:]
	sum := checksum(body)
	return string(sum[:]) == check
}

// Ours reports whether s starts as this instance's keys do.
func (f Format) Ours(s string) bool {
	return len(s) > len(f.prefix) && s[len(f.prefix)] == '_' && s[:len(f.prefix)] == f.prefix
}

// MayContinue reports whether c right after a key would make it another word.
func MayContinue(c byte) bool { return c == '_' || isBase62(c) }

func isBase62(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

func checksum(s string) [checkLength]byte {
	// The digits are written from the right; what is left of the number stays '0'.
	out := [checkLength]byte{'0', '0', '0', '0', '0', '0'}
	table := crc32.IEEETable
	sum := ^uint32(0)
	for i := range len(s) { // crc32.ChecksumIEEE takes bytes, and converting would allocate
		sum = table[byte(sum)^s[i]] ^ sum>>8
	}
	sum = ^sum
	for i := checkLength - 1; sum > 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return out
}
