package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/term"
)

// console prints the program's bytes unchanged, and messages of this command on standard error.
type console struct {
	quiet, verbose bool
	statusLine     statusLine
	hasOpenLine    atomic.Bool // the last output did not end with a line feed
}

func newConsole(flags *flags) *console {
	enabled := !flags.quiet && !flags.verbose && term.IsTerminal(int(os.Stderr.Fd()))
	return &console{quiet: flags.quiet, verbose: flags.verbose, statusLine: statusLine{enabled: enabled}}
}

// write writes all bytes, unbuffered. It fails with an outputError.
func (c *console) write(stream string, data []byte) error {
	c.statusLine.close()
	if len(data) == 0 {
		return nil
	}
	file := os.Stdout
	if stream == "stderr" {
		file = os.Stderr
	}
	if _, err := file.Write(data); err != nil {
		number := syscall.EIO
		errors.As(err, &number)
		return &outputError{number}
	}
	c.hasOpenLine.Store(data[len(data)-1] != '\n')
	return nil
}

// info prints a message, unless --quiet was given.
func (c *console) info(format string, values ...any) {
	if !c.quiet {
		c.error(format, values...)
	}
}

// debug prints a message if --verbose was given.
func (c *console) debug(format string, values ...any) {
	if c.verbose && !c.quiet {
		c.error(format, values...)
	}
}

// error prints a message. It may contain text of servers, programs and packages.
func (c *console) error(format string, values ...any) {
	c.statusLine.clear()
	fmt.Fprintln(os.Stderr, "python-executor: "+printable(fmt.Sprintf(format, values...)))
	c.hasOpenLine.Store(false)
}

// statusLine is a line on the terminal that shows the current phase and is overwritten by the next one.
type statusLine struct {
	lock    sync.Mutex
	enabled bool // standard error is a terminal, and no output has been printed yet
	visible bool
}

// show replaces the line.
func (l *statusLine) show(text string) {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.enabled {
		fmt.Fprintf(os.Stderr, "\r\x1b[Kpython-executor: %s", printable(text))
		l.visible = true
	}
}

// clear erases the line. It can be shown again.
func (l *statusLine) clear() {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.visible {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		l.visible = false
	}
}

// close erases the line and disables it.
func (l *statusLine) close() {
	l.clear()
	l.lock.Lock()
	defer l.lock.Unlock()
	l.enabled = false
}
