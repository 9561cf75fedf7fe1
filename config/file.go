package config

import "crypto/sha256"

// maxPEM bounds a file of certificates: a bundle of all public authorities has a
// fifth of it.
const maxPEM = 1 << 20

// File is one that a policy names, as it was when the policy was read.
type File struct {
	Path string
	sum  [sha256.Size]byte
}

// Changed reports whether the file says something else by now, or cannot be read
// although it could, or the other way round.
func (f File) Changed() bool {
	_, sum, _ := readNamed(f.Path) // the sum tells of the error
	return sum != f.sum
}

// readNamed reads a file; the sum is that of its contents, or of why they cannot be
// had.
func readNamed(path string) (data []byte, sum [sha256.Size]byte, err error) {
	if data, err = readBounded(path, maxPEM); err != nil {
		return nil, sha256.Sum256([]byte("error: " + err.Error())), err
	}
	return data, sha256.Sum256(data), nil
}
