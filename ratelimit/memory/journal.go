package memory

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// blocks is how many parts a calendar quota is claimed in, if less is asked for at
// once: so much of it a crash may cost, and so many times a period it waits for the disk.
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
	mu     sync.Mutex
	path   string
	open   openFile
	file   file // nil: none could be opened so far, or it is closed
	closed bool
	live   map[claimKey]claim // what is known to be on the disk
	lines  int
	// torn: what the file ends with is not known, so that nothing may be added to it.
	torn bool
}

// A file is what is needed of an [os.File], and openFile opens one to write.
type (
	file interface {
		io.Writer
		Sync() error
		Close() error
	}
	openFile func(path string, flag int) (file, error)
)

func openOnDisk(path string, flag int) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|flag, 0o600)
}

// compactAfter is how many old lines a journal may have, and as many as new ones.
const compactAfter = 4096

// openJournal reads the claims whose period has not ended by now, and makes the
// journal ready for more. there says that one was there before. full is why it takes no
// more at present: what was read holds all the same, and the first claim that finds room
// mends it.
func openJournal(path string, now int64) (j *journal, there bool, full, err error) {
	j = &journal{path: path, open: openOnDisk, live: make(map[claimKey]claim)}
	file, err := os.Open(path)
	if err == nil {
		there = true
		err = errors.Join(j.read(file, now), file.Close())
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, there, nil, fmt.Errorf("journal of quotas: %w", err)
	}
	full = j.replace(nil, now)
	j.torn = full != nil
	return j, there, full, nil
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

// add makes claims durable. An error says that they are not known to be, though
// they may be: then they count as given after a crash, and what was known stays.
//
// The clock is read once nobody else adds. A claim that was decided on before its
// period ended and comes here after it is of no use to anybody, and in the place of
// one for the next period it would have a crash give that anew.
func (j *journal) add(claims []claim, clock func() int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := clock()
	var needed []claim
	for _, c := range claims {
		if held := j.live[c.key()]; c.End > now && (held.End != c.End || held.UpTo < c.UpTo) { // or somebody else was first
			needed = append(needed, c)
		}
	}
	if needed == nil {
		return nil
	}
	if j.closed {
		return errors.New("journal of quotas: it is closed")
	}
	var err error
	if !j.torn {
		err = j.append(needed)
	}
	if j.torn { // a new file mends it, if there is room for one
		if mended := j.replace(needed, now); mended != nil {
			return errors.Join(err, mended)
		}
		return nil
	}
	if j.lines > compactAfter+2*len(j.live) {
		_ = j.replace(nil, now) // what was asked for is on the disk; this is tried again with the next claims
	}
	return nil
}

// append adds lines to the file.
func (j *journal) append(claims []claim) error {
	var text []byte
	for i := range claims {
		text = appendClaim(text, &claims[i])
	}
	_, err := j.file.Write(text)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.torn = true
		return fmt.Errorf("journal of quotas: %w", err)
	}
	for _, c := range claims {
		j.live[c.key()] = c
	}
	j.lines += len(claims)
	return nil
}

func appendClaim(text []byte, c *claim) []byte {
	line, err := json.Marshal(c)
	if err != nil {
		panic("memory: " + err.Error()) // strings and numbers always marshal
	}
	text = fmt.Appendf(text, "%08x ", crc32.ChecksumIEEE(line))
	return append(append(text, line...), '\n')
}

// replace writes the live claims, and these, to a new file, which takes the old
// one's place.
func (j *journal) replace(claims []claim, now int64) error {
	live := maps.Clone(j.live)
	for _, c := range claims {
		live[c.key()] = c
	}
	maps.DeleteFunc(live, func(_ claimKey, c claim) bool { return c.End <= now })
	var text []byte
	for _, c := range live {
		text = appendClaim(text, &c)
	}
	placed, err := writeFile(j.open, j.path, text)
	j.torn = j.torn || placed // nobody will read the old one
	if err != nil {
		return fmt.Errorf("journal of quotas: %w", err)
	}
	file, err := j.open(j.path, os.O_APPEND)
	if err != nil {
		return fmt.Errorf("journal of quotas: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close() // it has been replaced
	}
	j.file, j.live, j.lines, j.torn = file, live, len(live), false
	return nil
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	return err
}

// writeFile replaces a file as a whole, on the disk when it returns. placed says
// that the new one is in place, though after an error perhaps not for long.
func writeFile(open openFile, path string, text []byte) (placed bool, err error) {
	next := path + ".new" + strconv.Itoa(os.Getpid())
	file, err := open(next, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return false, err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return false, errors.Join(err, os.Remove(next))
	}
	return true, syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
