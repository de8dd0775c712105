package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// console is where things are printed: the script's bytes as they are, our own words on standard error.
type console struct {
	quiet, verbose bool
	line           statusLine
}

func newConsole(flags *flags) *console {
	shown := !flags.quiet && !flags.verbose && term.IsTerminal(int(os.Stderr.Fd()))
	return &console{quiet: flags.quiet, verbose: flags.verbose, line: statusLine{shown: shown}}
}

// write writes these bytes at once, all of them; outputError if that cannot be.
func (c *console) write(stream string, data []byte) error {
	c.line.end()
	file := os.Stdout
	if stream == "stderr" {
		file = os.Stderr
	}
	if _, err := file.Write(data); err != nil {
		number := syscall.EIO
		errors.As(err, &number)
		return &outputError{number}
	}
	return nil
}

// note is something worth knowing.
func (c *console) note(format string, values ...any) {
	if !c.quiet {
		c.problem(format, values...)
	}
}

// detail is something for those who asked for every step.
func (c *console) detail(format string, values ...any) {
	if c.verbose && !c.quiet {
		c.problem(format, values...)
	}
}

// problem is something that went wrong.
func (c *console) problem(format string, values ...any) {
	c.line.clear()
	fmt.Fprintf(os.Stderr, "python-executor: "+format+"\n", values...)
}

// statusLine is one line on a terminal that is written over as things go on, until output comes.
type statusLine struct {
	lock    sync.Mutex
	shown   bool // whether there is a terminal, and nothing has been printed on it yet
	written bool
}

func (l *statusLine) show(text string) {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.shown {
		fmt.Fprintf(os.Stderr, "\r\x1b[Kpython-executor: %s", text)
		l.written = true
	}
}

// clear takes the line away; another may follow.
func (l *statusLine) clear() {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.written {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		l.written = false
	}
}

// end takes the line away for good.
func (l *statusLine) end() {
	l.clear()
	l.lock.Lock()
	defer l.lock.Unlock()
	l.shown = false
}
