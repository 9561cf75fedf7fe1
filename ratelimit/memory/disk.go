package memory

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"keygate/ratelimit"
)

// Files of the data directory.
const (
	stateFile   = "limits.state"
	journalFile = "quotas.log"
	stateMagic  = "keygate limits 1 "
)

// Found says what the directory of a ledger had.
type Found struct {
	// Clean: the ledger is as it was at the last stop. Crashed: the last one that
	// used the directory did not stop in order; quotas are known to a block, and
	// windows are forgotten. Neither: nobody used it before.
	Clean, Crashed bool
	// Warning is why what was there is not used.
	Warning error
	// Full is why the disk takes no claims of calendar quotas at present: what needs
	// one is refused until it does. What was there is used.
	Full error
}

// Open returns a ledger that outlives its process: an orderly end, which is Close,
// keeps all of it, and a crash of the machine or process at least what was given
// of calendar quotas: what was leased and not spent, and claimed ahead, is lost to
// the holder. A state that is read is removed before it is used: it must not be
// believed again.
func Open(dir string, o Options) (*Ledger, Found, error) {
	l := New(o)
	l.dir = dir
	var found Found
	saved, err := readState(filepath.Join(dir, stateFile))
	switch {
	case err == nil:
		found.Clean = true
	case !errors.Is(err, fs.ErrNotExist):
		found.Crashed, found.Warning = true, fmt.Errorf("limits are not taken over: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, found, fmt.Errorf("the state of the limits would be used twice: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, found, fmt.Errorf("the state of the limits would be used twice: %w", err)
	}
	if found.Clean {
		l.base = max(l.base, saved.Clock) // a wall clock that was set back frees nothing
	}
	path := filepath.Join(dir, journalFile)
	j, there, full, err := openJournal(path, l.date())
	if err != nil {
		found.Warning = errors.Join(found.Warning, fmt.Errorf("quotas are not taken over: %w", err))
		if err := os.Rename(path, path+".damaged"); err != nil {
			return nil, found, fmt.Errorf("journal of quotas: %w", err)
		}
		if j, _, full, err = openJournal(path, l.date()); err != nil {
			return nil, found, err
		}
	}
	l.journal, found.Full = j, full
	found.Crashed = found.Crashed || there && !found.Clean
	if found.Clean {
		l.restore(saved)
	}
	l.claim(found.Crashed)
	return l, found, nil
}

// Close keeps the ledger's state for the next start and ends it: from now on it
// answers nobody. It does nothing for one that New made.
func (l *Ledger) Close() error {
	if l.journal == nil || l.closed.Swap(true) {
		return nil
	}
	text, err := l.save()
	if err == nil {
		_, err = writeFile(openOnDisk, filepath.Join(l.dir, stateFile), text)
	}
	return errors.Join(err, l.journal.close())
}

var errClosed = errors.New("memory ledger: it is closed")

// claim takes the claims over: after a crash all of what was claimed counts as
// spent; otherwise it is what can be given without the disk.
func (l *Ledger) claim(crashed bool) {
	for _, c := range l.journal.live {
		sh := l.shardOf(c.Place)
		key := holderKey{c.Place, c.Holder, false}
		if crashed {
			h := sh.holder(key)
			i := h.add(l.clock(), c.Name, term{end: c.End, next: c.End + ratelimit.LongestPeriod.Microseconds(), wall: c.End})
			h.budgets[i].charge(c.End, c.UpTo)
			h.end = max(h.end, c.End)
		}
		if h := sh.holders[key]; h != nil {
			if i := h.index(c.Name); i >= 0 && h.budgets[i].wall == c.End {
				h.budgets[i].durable = c.UpTo
			}
		}
	}
}

// ahead lists what must be on the disk before the step may give what is asked for,
// since a crash must find what was given, and an ask that the disk has no room for
// must leave everything as it was. That is as much as may be given, or a block where
// that is more; nothing where nothing can be given.
func (s *step) ahead() (out []claim) {
	a := s.ask
	if a.Take == 0 && a.Want == 0 || s.measure() < a.Cost || s.lost() {
		return nil
	}
	for k := range s.places {
		p := &s.places[k]
		if !p.budget().calendar() {
			continue
		}
		most := min(a.Take+min(a.Want, p.largest(a.Cost)), p.avail)
		if total := p.quota - p.avail; total+most > p.budget().durable {
			out = append(out, p.claim(max(total+most, min(p.quota, total+p.quota/blocks))))
		}
	}
	return out
}

// behind lists what should be on the disk after a correction: it is charged whether
// or not there is room, since it was spent.
func (s *step) behind() (out []claim) {
	for k := range s.places {
		p := &s.places[k]
		if b := p.budget(); b.calendar() {
			if total := b.spent + p.h.leased(); total > b.durable {
				out = append(out, p.claim(total))
			}
		}
	}
	return out
}

func (p *place) claim(upTo int64) claim {
	return claim{p.h.key.place, p.h.key.holder, p.budget().name, p.budget().wall, upTo}
}

// claimed takes in that claims are on the disk.
func (s *step) claimed(claims []claim) {
	for k := range s.places {
		p := &s.places[k]
		for i := range claims {
			if c := &claims[i]; *c == p.claim(c.UpTo) {
				p.budget().durable = max(p.budget().durable, c.UpTo)
			}
		}
	}
}

// What is saved; the names of the fields are part of the format.
type (
	savedLedger struct {
		Clock   int64
		Holders []savedHolder
	}
	savedHolder struct {
		Place, Holder   string
		HWM, End, Rules int64
		Budgets         []savedBudget
		Sessions        []savedSession
		Corrections     []savedCorrection
	}
	savedBudget struct {
		Name                        string
		Per, PeriodEnd, Next, Quota int64
		Charges                     [][2]int64 // until, count
		Closed                      []savedClosed
	}
	savedSession struct {
		ID                  string
		Granted, Acked, Exp int64
	}
	savedClosed struct {
		ID                 string
		Acked, Rest, Until int64
	}
	savedCorrection struct {
		Session                 string
		Reserved, Actual, Until int64
	}
)

// save is the ledger at this moment. Requests in flight are not in it: they end
// with the process.
func (l *Ledger) save() ([]byte, error) {
	all := savedLedger{Clock: l.clock()}
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		for _, h := range sh.order {
			if !h.key.concurrent && h.end > all.Clock {
				all.Holders = append(all.Holders, h.saved())
			}
		}
		sh.mu.Unlock()
	}
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(all); err != nil {
		return nil, fmt.Errorf("state of the limits: %w", err)
	}
	head := fmt.Sprintf("%s%08x\n", stateMagic, crc32.ChecksumIEEE(body.Bytes()))
	return append([]byte(head), body.Bytes()...), nil
}

func (h *holder) saved() savedHolder {
	out := savedHolder{Place: h.key.place, Holder: h.key.holder, HWM: h.hwm, End: h.end, Rules: h.rules}
	for i := range h.budgets {
		b := &h.budgets[i]
		lag := b.wall - b.end // the next start has none: its clock begins as the wall clock
		s := savedBudget{Name: b.name, Per: b.per, PeriodEnd: b.wall, Next: b.next + lag, Quota: b.quota}
		for _, e := range b.entries {
			s.Charges = append(s.Charges, [2]int64{e.until + lag, e.count})
			out.End = max(out.End, e.until+lag)
		}
		for _, c := range b.closed {
			s.Closed = append(s.Closed, savedClosed{c.id, c.acked, c.rest, c.until + lag})
		}
		out.Budgets = append(out.Budgets, s)
	}
	for _, s := range h.sessions {
		out.Sessions = append(out.Sessions, savedSession{s.id, s.granted, s.acked, s.exp})
	}
	for _, c := range h.corrections {
		out.Corrections = append(out.Corrections, savedCorrection{c.session, c.reserved, c.actual, c.until})
	}
	return out
}

// readState reads what Close wrote.
func readState(path string) (saved savedLedger, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return saved, err
	}
	head, body, found := bytes.Cut(text, []byte("\n"))
	if !found || string(head) != fmt.Sprintf("%s%08x", stateMagic, crc32.ChecksumIEEE(body)) {
		return saved, fmt.Errorf("%s is damaged or of another version", path)
	}
	if err := gob.NewDecoder(bytes.NewReader(body)).Decode(&saved); err != nil {
		return savedLedger{}, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	return saved, nil
}

func (l *Ledger) restore(saved savedLedger) {
	for i := range saved.Holders {
		s := &saved.Holders[i]
		h := l.shardOf(s.Place).holder(holderKey{s.Place, s.Holder, false})
		h.hwm, h.end, h.rules = s.HWM, s.End, s.Rules
		for _, b := range s.Budgets {
			to := budget{name: b.Name, term: term{b.Per, b.PeriodEnd, b.Next, b.PeriodEnd}, quota: b.Quota}
			for _, e := range b.Charges {
				to.entries = append(to.entries, entry{e[0], e[1]})
				to.spent += e[1]
			}
			for _, c := range b.Closed {
				to.closed = append(to.closed, closed{c.ID, c.Acked, c.Rest, c.Until})
			}
			h.budgets = append(h.budgets, to)
		}
		for _, x := range s.Sessions {
			h.sessions = append(h.sessions, session{x.ID, x.Granted, x.Acked, x.Exp})
		}
		for _, c := range s.Corrections {
			h.corrections = append(h.corrections, correction{c.Session, c.Reserved, c.Actual, c.Until})
		}
	}
}
