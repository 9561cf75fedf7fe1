package server

import (
	"runtime"
	"testing"
)

func TestRaiseHeap(t *testing.T) {
	nextCollection := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NextGC
	}
	release := raiseHeap()
	raised := nextCollection()
	release()
	if lowered := nextCollection(); raised < lowered+heapFloor {
		t.Errorf("garbage is collected at %d MiB, and at %d MiB without the floor", raised>>20, lowered>>20)
	}
}
