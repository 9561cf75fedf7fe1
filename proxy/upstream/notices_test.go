package upstream

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A target that comes and goes all day may have a line a minute, and not one for each
// time. Whatever was left out, the last line says how things stand.
func TestFlappingTargetDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newTest(t, 2, nil)
		core, logs := observer.New(zapcore.DebugLevel)
		u.Start(zap.New(core))
		x := u.targets[0]
		const hours = 3
		changes := 0
		for range hours * 3600 / 15 {
			for range ejectAfter {
				u.failed(x, timedOut, errTest)
			}
			time.Sleep(ejectFor)
			x.answered(u.clock)
			time.Sleep(5 * time.Second)
			changes += 2
		}
		lines := logs.TakeAll()
		if most := noticesAtOnce + hours*60; len(lines) > most || len(lines) < most/2 {
			t.Errorf("%d lines of %d changes in %d hours; at most %d", len(lines), changes, hours, most)
		}
		told := 0
		for _, line := range lines {
			told++
			if n, ok := line.ContextMap()["changes_without_a_line"].(int64); ok {
				told += int(n)
			}
		}
		if told < changes-10 { // what is kept back still is yet to come
			t.Errorf("%d of %d changes are told of", told, changes)
		}

		for range ejectAfter { // the last change, in the middle of the flapping
			u.failed(x, timedOut, errTest)
		}
		time.Sleep(noticeEvery)
		lines = logs.TakeAll()
		if len(lines) == 0 || lines[len(lines)-1].Message != "an upstream's target is left alone: requests in a row failed on it" {
			t.Errorf("the target is out, and the last lines are %v", lines)
		}

		for range 2 * noticesAtOnce {
			x.notices.say(zapcore.InfoLevel, "more")
		}
		logs.TakeAll()
		u.Close()
		x.notices.say(zapcore.InfoLevel, "after the end")
		time.Sleep(2 * noticeEvery)
		if n := logs.Len(); n != 0 {
			t.Errorf("%d lines about an upstream that is no longer there", n)
		}
	})
	goleak.VerifyNone(t)
}
