// The program python-executor runs Python in throw-away sandboxes on a python-executor server.
//
// It behaves as the command line program of the Python distribution does: one suite tests both.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// A reader that goes away ends a write with an error, which run takes as the end of the execution.
	signal.Ignore(syscall.SIGPIPE)
	stopLeaving := leaveOnInterrupt()
	code, err := execute(os.Args[1:], stopLeaving)
	if err != nil {
		code = explain(err)
	}
	os.Exit(code)
}
