package upstream

import (
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
)

// What is taken out at night must be found in the log in the morning, and one that
// comes and goes must not fill it: each target and each breaker may have so many
// lines at once, and one in noticeEvery from then on.
const (
	noticesAtOnce = 6
	noticeEvery   = time.Minute
)

// notices tell the operator what became of a target or a breaker. Those that would be
// too many are kept back: the newest follows as soon as it may, and says how many
// changes had no line, so that the last line always says how things stand.
type notices struct {
	mu    sync.Mutex
	log   *zap.Logger // nil: nobody is told
	pace  *rate.Limiter
	kept  notice
	more  int         // that kept has taken the place of
	later *time.Timer // nil: nothing is kept back
}

// notice is one change.
type notice struct {
	level  zapcore.Level
	text   string
	fields []zap.Field
}

// begin has a log told from now on.
func (n *notices) begin(log *zap.Logger) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log, n.pace = log, rate.NewLimiter(rate.Every(noticeEvery), noticesAtOnce)
}

// end has nobody told any more.
func (n *notices) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.log = nil
	if n.later != nil {
		n.later.Stop()
		n.later = nil
	}
}

func (n *notices) say(level zapcore.Level, text string, fields ...zap.Field) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.log == nil:
	case n.later != nil:
		n.kept = notice{level, text, fields}
		n.more++
	default:
		wait := n.pace.Reserve().Delay()
		if wait == 0 {
			n.log.Log(level, text, fields...)
			return
		}
		n.kept, n.more = notice{level, text, fields}, 0
		n.later = time.AfterFunc(wait, n.catchUp)
	}
}

// catchUp says what was kept back last.
func (n *notices) catchUp() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.later == nil { // ended in the same moment
		return
	}
	n.later = nil
	n.log.Log(n.kept.level, n.kept.text, append(n.kept.fields, zap.Int("changes_without_a_line", n.more))...)
	n.kept = notice{}
}

// statusError is an answer that says that there is none.
type statusError int

func (s statusError) Error() string { return fmt.Sprintf("answered %d", int(s)) }
