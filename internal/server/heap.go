package server

import "runtime"

// heapFloor is how much the garbage collector takes to be in use at least.
// keygate itself keeps some 3 MiB, and the garbage of a thousand requests is as
// much again: without a floor it would collect dozens of times a second, and
// that took a tenth of all CPU time.
const heapFloor = 16 << 20

// raiseHeap lets about heapFloor more garbage pile up before it is collected,
// until release is called. The floor itself is never touched, so that at the
// start of a process it takes addresses and no memory. GOGC and GOMEMLIMIT act
// as ever. A larger GOGC would not do instead: it multiplies whatever is in use,
// a full key cache too.
func raiseHeap() (release func()) {
	floor := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(floor) }
}
