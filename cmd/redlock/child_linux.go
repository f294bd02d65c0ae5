package main

import "syscall"

// dieWithTool makes the kernel kill the child when the tool dies, as by SIGKILL: no
// process would extend its lock.
func dieWithTool(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
