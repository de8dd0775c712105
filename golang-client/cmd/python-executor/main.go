// Command python-executor runs Python code in isolated sandboxes on a python-executor server.
//
// It behaves like the command of the same name in the Python distribution; the same tests run against both.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// Without SIGPIPE, writing to a closed pipe fails with an error, and the command run then kills the execution.
	signal.Ignore(syscall.SIGPIPE)
	code, err := execute(os.Args[1:], exitOnInterrupt())
	if err != nil {
		code = reportError(err)
	}
	os.Exit(code)
}
