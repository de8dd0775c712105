//go:build linux || darwin

package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// terminalAnswer is how long a terminal may take to answer. One that does not shows no images.
const terminalAnswer = 500 * time.Millisecond

// terminalAnswerBytes is how many bytes of the terminal are searched for its answer.
const terminalAnswerBytes = 4096

var terminalAttributes = regexp.MustCompile(`\x1b\[\?([\d;]*)c`)

// hasSixel asks the terminal for its attributes, and reports whether sixel graphics are among them. It returns false if
// standard output is not the controlling terminal, if this process is in the background, or if the user has typed ahead:
// the input belongs to the next program.
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
	// Without a deadline, Read could block forever. Do not call terminal.Fd(): it disables deadlines.
	if terminal.SetReadDeadline(time.Now().Add(terminalAnswer)) != nil {
		return false
	}
	restore, err := readUnechoed(int(os.Stdout.Fd()))
	if err != nil {
		return false
	}
	defer restore()
	if hasUnreadData(os.Stdout) {
		return false
	}
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
		if len(answer) > terminalAnswerBytes {
			return false
		}
	}
}

// readUnechoed lets the terminal pass on its answer at once, and not show it. Ctrl-C and line ends keep their meaning.
// It returns a function that restores the terminal.
func readUnechoed(fd int) (func(), error) {
	saved, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return nil, err
	}
	modes := *saved
	modes.Lflag &^= unix.ICANON | unix.ECHO
	modes.Cc[unix.VMIN], modes.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, setTermios, &modes); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, setTermios, saved) }, nil
}
