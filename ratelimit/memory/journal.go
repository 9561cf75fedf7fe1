package memory

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// blocks is how many parts a calendar quota is claimed in: so much of it a crash
// may cost, and so many times a period it waits for the disk.
const blocks = 50

// A claim says, on disk, that up to so much of a calendar quota may have been
// given in the period that ends at End. Nothing is given beyond it, so that after
// a crash what was given is known, if only to a block.
type claim struct {
	Place  string `json:"place"`
	Holder string `json:"holder"`
	Name   string `json:"name"`
	End    int64  `json:"end"`
	UpTo   int64  `json:"up_to"`
}

type claimKey struct{ place, holder, name string }

func (c *claim) key() claimKey { return claimKey{c.Place, c.Holder, c.Name} }

// A journal is the file of claims: one on each line, a checksum before it. Lines
// are only added; it is written anew when most of them are old.
type journal struct {
	mu    sync.Mutex
	path  string
	file  *os.File
	live  map[claimKey]claim
	lines int
	// torn: what the file ends with is not known, so that nothing may be added to it.
	torn bool
}

// compactAfter is how many old lines a journal may have, and as many as new ones.
const compactAfter = 4096

// openJournal reads the claims whose period has not ended by now, and makes the
// journal ready for more. there says that one was there before.
func openJournal(path string, now int64) (j *journal, there bool, err error) {
	j = &journal{path: path, live: make(map[claimKey]claim)}
	file, err := os.Open(path)
	if err == nil {
		there = true
		err = errors.Join(j.read(file, now), file.Close())
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, there, fmt.Errorf("journal of quotas: %w", err)
	}
	return j, there, j.compact()
}

// read takes in the lines. The last one may have been cut off by a crash: then
// nothing was given on it.
func (j *journal) read(file *os.File, now int64) error {
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 0, 4096), 1<<20)
	var broken error
	for n := 1; lines.Scan(); n++ {
		if broken != nil {
			return broken // it was not the last one
		}
		var c claim
		line := lines.Bytes()
		if len(line) < 9 || fmt.Sprintf("%08x ", crc32.ChecksumIEEE(line[9:])) != string(line[:9]) || json.Unmarshal(line[9:], &c) != nil {
			broken = fmt.Errorf("%s: line %d is damaged", j.path, n)
			continue
		}
		switch held := j.live[c.key()]; { // a limit whose period was changed has another end
		case c.End <= now:
			delete(j.live, c.key())
		case c.End != held.End || c.UpTo > held.UpTo:
			j.live[c.key()] = c
		}
	}
	return lines.Err()
}

// add makes claims durable; now is the ledger's time.
func (j *journal) add(claims []claim, now int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var text []byte
	for i := range claims {
		c := &claims[i]
		if held := j.live[c.key()]; held.End != c.End || held.UpTo < c.UpTo { // or somebody else was first
			text = appendClaim(text, c)
		}
	}
	if text == nil {
		return nil
	}
	if j.file == nil {
		return errors.New("journal of quotas: it is closed")
	}
	if j.torn {
		if err := j.compact(); err != nil {
			return err
		}
	}
	_, err := j.file.Write(text)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.torn = true
		return errors.Join(fmt.Errorf("journal of quotas: %w", err), j.compact())
	}
	for i := range claims {
		if c := &claims[i]; j.live[c.key()].End != c.End || j.live[c.key()].UpTo < c.UpTo {
			j.live[c.key()] = *c
			j.lines++
		}
	}
	if j.lines <= compactAfter+2*len(j.live) {
		return nil
	}
	for key, c := range j.live {
		if c.End <= now {
			delete(j.live, key)
		}
	}
	return j.compact()
}

func appendClaim(text []byte, c *claim) []byte {
	line, err := json.Marshal(c)
	if err != nil {
		panic("memory: " + err.Error()) // strings and numbers always marshal
	}
	text = fmt.Appendf(text, "%08x ", crc32.ChecksumIEEE(line))
	return append(append(text, line...), '\n')
}

// compact writes the live claims to a new file, which takes the old one's place.
func (j *journal) compact() error {
	j.torn = true // until the new file is open: the old one may be gone
	var text []byte
	for _, c := range j.live {
		text = appendClaim(text, &c)
	}
	if err := writeFile(j.path, text); err != nil {
		return fmt.Errorf("journal of quotas: %w", err)
	}
	file, err := os.OpenFile(j.path, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("journal of quotas: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close() // it has been replaced
	}
	j.file, j.lines, j.torn = file, len(j.live), false
	return nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.file.Close()
	j.file = nil
	return err
}

// writeFile replaces a file as a whole, on the disk when it returns.
func writeFile(path string, text []byte) error {
	next := path + ".new" + strconv.Itoa(os.Getpid())
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
