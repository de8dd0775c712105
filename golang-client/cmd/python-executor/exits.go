package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

// Exit codes: the program's own where it ran, ours where it did not.
const (
	exitUsage  = 2
	exitNotRun = 125
	exitPipe   = 141
	exitSignal = 128 // and the signal's number
)

// usageError is a wrong use of the command line.
type usageError struct {
	command *cobra.Command
	text    string
}

func (e *usageError) Error() string { return e.text }

func wrong(command *cobra.Command, format string, values ...any) error {
	return &usageError{command, fmt.Sprintf(format, values...)}
}

// outputError says that what the program printed cannot be written here.
type outputError struct{ number syscall.Errno }

func (e *outputError) Error() string { return "cannot write the output: " + strerror(e.number) }

// ofResult is the exit code that stands for a run's outcome.
func ofResult(result *pyexec.Result) int {
	switch {
	case result.Status == pyexec.Completed && result.ExitCode != nil:
		return *result.ExitCode
	case result.Status == pyexec.Completed:
		return 0
	case result.Status == pyexec.Failed && result.ErrorType == "timeout":
		return 124
	case result.Status == pyexec.Failed && result.ErrorType == "out_of_memory":
		return 137
	}
	return exitNotRun
}

// explain tells the person what went wrong and gives the exit code.
func explain(err error) int {
	var usage *usageError
	var output *outputError
	var argument *pyexec.ArgumentError
	var file *fs.PathError
	switch {
	case errors.As(err, &usage):
		path := usage.command.CommandPath()
		fmt.Fprintf(os.Stderr, "Usage: %s\nTry '%s --help' for help.\n\nError: %s\n",
			usage.command.UseLine(), path, usage.text)
		return exitUsage
	case errors.As(err, &output):
		if output.number == syscall.EPIPE {
			return exitPipe
		}
		return say(err.Error(), exitNotRun)
	case errors.Is(err, pyexec.ErrInvalidRequest):
		return say("the server refuses this: "+err.Error(), exitUsage)
	case errors.Is(err, pyexec.ErrUnauthorized):
		return say(err.Error()+" (give a token with --token or PYEXEC_TOKEN)", exitNotRun)
	case errors.As(err, &argument):
		return say(err.Error(), exitUsage)
	case errors.As(err, &file):
		return say(file.Path+": "+strerror(file.Err), exitNotRun)
	}
	return say(err.Error(), exitNotRun)
}

func say(text string, code int) int {
	fmt.Fprintf(os.Stderr, "python-executor: %s\n", text)
	return code
}

// strerror is the system's own words for an error, as C spells them.
func strerror(err error) string {
	var file *fs.PathError
	if errors.As(err, &file) {
		err = file.Err
	}
	text := err.Error()
	first, size := utf8.DecodeRuneInString(text)
	return strings.ToUpper(string(unicode.ToUpper(first))) + text[size:]
}
