package main

import "syscall"

// dieWithParent lets the kernel end a child if this process is killed before it
// can do so itself.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
