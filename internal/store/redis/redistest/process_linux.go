package redistest

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the process when the test's own dies, as it
// does on a time-out, where no clean-up runs.
func endWithParent(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
