package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

var leaveWords = []string{"exit", "quit", "exit()", "quit()"}

func (a *app) repl() *cobra.Command {
	var settings sessionFlags
	var sessionID, outputDir string
	command := &cobra.Command{
		Use:   "repl [flags]",
		Short: "Type Python code that runs on the server, in one session.",
		Long: "Type Python code that runs on the server, in one session.\n\n" +
			"Ctrl-C interrupts the code; a second Ctrl-C kills it. Ctrl-D closes the session,\n" +
			"unless it was named with --session.",
		Args: arguments(0),
		RunE: func(command *cobra.Command, _ []string) error {
			if command.Flags().Changed("output-dir") && outputDir == "" {
				return usageErrorf(command, "--output-dir: must not be empty")
			}
			options, err := settings.options(command, &a.flags)
			if err != nil {
				return err
			}
			isGiven := func(name string) bool { return command.Flags().Changed(name) }
			if sessionID != "" && slices.ContainsFunc(sessionFlagNames, isGiven) {
				return usageErrorf(command, "--session: the session is open; leave out the flags that open one")
			}
			console := newConsole(&a.flags)
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			session, err := replSession(command.Context(), client, sessionID, options, console)
			if err != nil {
				return err
			}
			loop := &repl{client: client, session: session, console: console, outputDir: outputDir, input: newLineReader()}
			if sessionID != "" && a.flags.timeout > 0 {
				loop.options = append(loop.options, pyexec.WithTimeout(a.flags.timeout.duration()))
			}
			a.exitCode, err = loop.runUntilSignal(a.stopExitOnInterrupt)
			loop.input.close()
			if sessionID == "" {
				err = errors.Join(err, session.Close(context.Background()))
			}
			return err
		},
	}
	command.Flags().StringVar(&sessionID, "session", "", "Use the session `ID`, and leave it open.")
	settings.addTo(command)
	command.Flags().StringVar(&outputDir, "output-dir", "", "Save displays such as figures in `DIR` as display-1.png.")
	return command
}

func replSession(
	ctx context.Context, client *pyexec.Client, sessionID string, options []pyexec.Option, console *console,
) (*pyexec.Session, error) {
	defer console.statusLine.close()
	var session *pyexec.Session
	var err error
	if sessionID == "" {
		console.statusLine.show("opening a session")
		session, err = client.OpenSession(ctx, options...)
	} else {
		session, err = client.GetSession(ctx, sessionID)
	}
	if err != nil {
		return nil, err
	}
	console.statusLine.close()
	end := "Ctrl-D closes it"
	if sessionID != "" {
		end = "Ctrl-D exits; the session stays open"
	}
	console.info("session %s (%s); %s", session.ID, session.Info().DockerImage, end)
	return session, nil
}

// repl reads statements and runs each as a cell.
type repl struct {
	client    *pyexec.Client
	session   *pyexec.Session
	console   *console
	outputDir string
	options   []pyexec.Option // of each cell
	input     *lineReader
	displays  int // how many have been shown
}

// runUntilSignal runs until the end of the input or a signal that ends the program, and returns the exit code.
func (r *repl) runUntilSignal(stopExitOnInterrupt func()) (int, error) {
	signals := allSignals
	if r.input.isTerminal {
		// A cell handles Ctrl-C, and the editor reads it as a key. In between, it must not end the program.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
		signals = endSignals
	}
	return interruptible(stopExitOnInterrupt, r.run, func() bool { return false }, signals...)
}

// run runs statements until the end of the input and returns the exit code. On a terminal, it is 0. Otherwise, the first
// statement that fails is the last one, and its exit code is returned.
func (r *repl) run(ctx context.Context) (int, error) {
	var typed statements
	for {
		prompt := ">>> "
		if !typed.isEmpty() {
			prompt = "... "
		}
		line, err := r.input.read(prompt)
		switch {
		case errors.Is(err, errInterrupted):
			fmt.Fprintln(os.Stderr, "\nKeyboardInterrupt")
			typed.take()
			continue
		case err == io.EOF && r.input.isTerminal:
			_, err := fmt.Fprintln(os.Stderr)
			return codeOfHangup(err), nil
		case err == io.EOF && typed.isEmpty():
			return 0, nil
		case err == io.EOF:
			return r.runCell(ctx, typed.take())
		case err != nil && codeOfHangup(err) != 0:
			return codeOfHangup(err), nil
		case err != nil:
			return 0, err
		}
		if typed.isEmpty() && slices.Contains(leaveWords, strings.TrimSpace(line)) {
			return 0, nil
		}
		if code, complete := typed.add(line); complete {
			exitCode, err := r.runCell(ctx, code)
			if err != nil || exitCode != 0 && !r.input.isTerminal {
				return exitCode, err
			}
		}
	}
}

// runCell runs one cell, prints its output, and returns its exit code. On a terminal, an error of the server leaves the
// session usable.
func (r *repl) runCell(ctx context.Context, code string) (int, error) {
	result, err := r.waitForCell(ctx, code)
	if err == nil && result != nil {
		return r.print(result)
	}
	var output *outputError
	isFatal := errors.As(err, &output) || errors.Is(err, pyexec.ErrSessionClosed) ||
		errors.Is(err, pyexec.ErrUnauthorized) || ctx.Err() != nil
	if err == nil || isFatal || !r.input.isTerminal {
		return exitNotRun, err
	}
	r.console.error("%s", err)
	return exitNotRun, nil
}

// waitForCell runs one cell. It returns nil if the user stops waiting for it.
//
// With a key, the client sends the request again if the connection was closed while the user typed.
func (r *repl) waitForCell(program context.Context, code string) (*pyexec.Result, error) {
	printer := newEventPrinter(r.console, true, false)
	ctx, cancel := context.WithCancel(program)
	defer cancel()
	signals := make(chan os.Signal, 2)
	if r.input.isTerminal {
		signal.Notify(signals, syscall.SIGINT)
		defer signal.Stop(signals)
		go r.interruptOn(ctx, signals, printer, cancel)
	}
	options := append(slices.Clone(r.options), pyexec.WithIdempotencyKey(rand.Text()))
	for event, err := range r.session.Stream(ctx, code, options...) {
		if err == nil {
			err = printer.show(event)
		}
		if err != nil && ctx.Err() != nil && program.Err() == nil && printer.id() != "" {
			r.console.error("stopped waiting; %s continues", printer.id())
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return printer.result, nil
}

// codeOfHangup returns the exit code of a program whose terminal was closed, if the terminal fails so, and otherwise 0.
// The terminal may fail before the signal arrives.
func codeOfHangup(err error) int {
	if errors.Is(err, syscall.EIO) {
		return signalCode(syscall.SIGHUP)
	}
	return 0
}

// interruptOn interrupts the cell at the first signal, kills it at the second one, and cancels the wait at the third one.
func (r *repl) interruptOn(
	ctx context.Context, signals <-chan os.Signal, printer *eventPrinter, cancel context.CancelFunc,
) {
	for presses := 1; ; presses++ {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		id := printer.id()
		switch {
		case presses == 1:
			go func() {
				if _, err := r.session.Interrupt(ctx); err != nil && ctx.Err() == nil {
					r.console.error("cannot interrupt the code: %s (press Ctrl-C again to kill it)", err)
				}
			}()
		case presses == 2 && id != "":
			r.console.error("killing the code (press Ctrl-C again to stop waiting)")
			go func() {
				if _, err := r.client.Kill(ctx, id); err != nil && ctx.Err() == nil {
					r.console.error("cannot kill the code: %s (press Ctrl-C again to stop waiting)", err)
				}
			}()
		default:
			cancel()
			return
		}
	}
}

func (r *repl) print(result *pyexec.Result) (int, error) {
	if result.Value != nil && *result.Value != "None" {
		if err := r.console.write("stdout", []byte(*result.Value+"\n")); err != nil {
			return 0, err
		}
	}
	if err := outputDisplays(result, r.outputDir, r.console, true, true, r.displays+1); err != nil {
		return 0, err
	}
	r.displays += len(result.Displays)
	exitCode, err := printResult(result, r.console, false)
	if err == nil && result.InterpreterRestarted {
		r.console.error("the interpreter is restarted; its variables are lost")
	}
	return exitCode, err
}
