//go:build linux || darwin

package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// fionread is the request for the number of bytes that can be read at once. The package unix has it for no system.
var fionread = map[string]uint{"linux": 0x541b, "darwin": 0x4004667f}[runtime.GOOS]

// hasUnreadData reports whether a pipe or a file has data that can be read at once.
func hasUnreadData(file *os.File) bool {
	count, err := unix.IoctlGetInt(int(file.Fd()), fionread)
	return err == nil && count != 0 // a directory is an error
}
