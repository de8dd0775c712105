package main

import (
	"io/fs"
	"os"
	"slices"
)

// hasUnusedStdin reports whether standard input is a pipe or a file with unread data, and no argument means it. It reads
// nothing: in a loop such as `while read`, the data belongs to another command.
func hasUnusedStdin(names []string) bool {
	status, err := os.Stdin.Stat()
	if err != nil || status.Mode()&fs.ModeCharDevice != 0 { // a terminal, or /dev/null
		return false
	}
	isStdin := func(name string) bool {
		named, err := os.Stat(name)
		return name == "-" || err == nil && os.SameFile(named, status)
	}
	return hasUnreadData(os.Stdin) && !slices.ContainsFunc(names, isStdin)
}
