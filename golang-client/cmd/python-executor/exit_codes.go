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

// Exit codes other than those of the program that was run.
const (
	exitUsage  = 2
	exitNotRun = 125
	exitPipe   = 141
	exitSignal = 128 // plus the number of the signal
)

// sources has the flag or argument that sets each field of a request. Users do not see the fields.
var sources = map[string]string{
	"config.timeout_seconds":  "--timeout",
	"config.memory_mb":        "--memory",
	"config.disk_mb":          "--disk",
	"config.cpu_shares":       "--cpu",
	"config.cpus":             "--cpus",
	"config.cpu_seconds":      "--cpu-seconds",
	"config.network_disabled": "--network",
	"docker_image":            "--image",
	"entrypoint":              "--entrypoint",
	"requirements_txt":        "--requirements",
	"pre_commands":            "--pre-command",
	"env_vars":                "--env",
	"stdin":                   "--stdin",
	"webhook_url":             "--webhook-url",
	"timeout_seconds":         "--timeout",
	"idle_timeout_seconds":    "--idle-timeout",
	"lifetime_seconds":        "--lifetime",
	"script_args":             "arguments after --",
	"output_files":            "--output-file",
	"tar":                     "",
	"files":                   "",
	"code":                    "",
	"metadata":                "",
	"body":                    "",
}

// usageError means that the command line is used incorrectly.
type usageError struct {
	command *cobra.Command
	text    string
}

func (e *usageError) Error() string { return e.text }

func usageErrorf(command *cobra.Command, format string, values ...any) error {
	return &usageError{command, fmt.Sprintf(format, values...)}
}

// outputError means that writing the program's output failed.
type outputError struct{ number syscall.Errno }

func (e *outputError) Error() string { return "cannot write the output: " + strerror(e.number) }

// exitCodeOf returns the exit code for the result of a run.
func exitCodeOf(result *pyexec.Result) int {
	switch {
	case result.Status == pyexec.Completed && result.ExitCode != nil:
		return *result.ExitCode
	case result.Status == pyexec.Completed:
		return 0
	case result.Status == pyexec.Failed && (result.ErrorType == "timeout" || result.ErrorType == "cpu_limit"):
		return 124
	case result.Status == pyexec.Failed && result.ErrorType == "out_of_memory":
		return 137
	}
	return exitNotRun
}

// reportError prints an error and returns the exit code for it.
func reportError(err error) int {
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
		return printError(err.Error(), exitNotRun)
	case errors.Is(err, pyexec.ErrInvalidRequest):
		return printError("request rejected by the server: "+rejectionOf(err), exitUsage)
	case errors.Is(err, pyexec.ErrUnauthorized):
		return printError(err.Error()+" (set a token with --token or PYEXEC_TOKEN)", exitNotRun)
	case errors.As(err, &argument):
		return printError(err.Error(), exitUsage)
	case errors.As(err, &file):
		return printError(file.Path+": "+strerror(file.Err), exitNotRun)
	}
	return printError(err.Error(), exitNotRun)
}

// rejectionOf returns the server's message, and the flag that is wrong.
func rejectionOf(err error) string {
	var rejected *pyexec.Error
	if !errors.As(err, &rejected) {
		return err.Error()
	}
	name, _, _ := strings.Cut(rejected.Field, "[")
	source, known := sources[name]
	if !known {
		source = rejected.Field
	}
	if source == "" || strings.Contains(rejected.Message, source) {
		return rejected.Message
	}
	return fmt.Sprintf("%s (%s)", rejected.Message, source)
}

func printError(text string, code int) int {
	fmt.Fprintf(os.Stderr, "python-executor: %s\n", printable(text))
	return code
}

// strerror returns the message of a system error with a capital letter, as the C function strerror does.
func strerror(err error) string {
	var file *fs.PathError
	if errors.As(err, &file) {
		err = file.Err
	}
	text := err.Error()
	first, size := utf8.DecodeRuneInString(text)
	return strings.ToUpper(string(unicode.ToUpper(first))) + text[size:]
}
