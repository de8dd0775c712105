//go:build linux || darwin

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminalAnswer is how long a terminal may take to answer. One that does not shows no images.
const terminalAnswer = 500 * time.Millisecond

var terminalAttributes = regexp.MustCompile(`\x1b\[\?([\d;]*)c`)

// hasSixel asks the terminal for its attributes, and reports whether sixel graphics are among them. It returns false if
// standard output is not the controlling terminal, or if this process is in the background.
func hasSixel() bool {
	group, err := unix.IoctlGetInt(int(os.Stdout.Fd()), unix.TIOCGPGRP)
	if err != nil || group != unix.Getpgrp() {
		return false
	}
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = terminal.Close() }() // nothing is written that could be lost
	// A terminal without deadlines would be waited for without end. Fd() comes later, because it removes them.
	if terminal.SetReadDeadline(time.Now().Add(terminalAnswer)) != nil {
		return false
	}
	saved, err := term.MakeRaw(int(os.Stdout.Fd()))
	if err != nil {
		return false
	}
	defer func() { _ = term.Restore(int(os.Stdout.Fd()), saved) }()
	if _, err := terminal.WriteString("\x1b[c"); err != nil {
		return false
	}
	answer := ""
	piece := make([]byte, 256)
	for {
		if found := terminalAttributes.FindStringSubmatch(answer); found != nil {
			return slices.Contains(strings.Split(found[1], ";"), "4")
		}
		count, err := terminal.Read(piece)
		if err != nil {
			return false
		}
		answer += string(piece[:count])
	}
}
