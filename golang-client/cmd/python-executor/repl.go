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
			"Ctrl-C interrupts the code; a second Ctrl-C stops waiting for it. Ctrl-D closes the session,\n" +
			"unless it was named with --session.",
		Args: noArguments,
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
			session, err := a.replSession(command, sessionID, options, console)
			if err != nil {
				return err
			}
			loop := &repl{session: session, console: console, outputDir: outputDir, input: newLineReader(),
				stopExitOnInterrupt: a.stopExitOnInterrupt}
			if sessionID != "" && a.flags.timeout > 0 {
				loop.options = append(loop.options, pyexec.WithTimeout(a.flags.timeout.duration()))
			}
			err = loop.run()
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

func (a *app) replSession(
	command *cobra.Command, sessionID string, options []pyexec.Option, console *console,
) (*pyexec.Session, error) {
	defer console.statusLine.close()
	client, err := a.flags.client(command)
	if err != nil {
		return nil, err
	}
	var session *pyexec.Session
	if sessionID == "" {
		console.statusLine.show("opening a session")
		session, err = client.OpenSession(command.Context(), options...)
	} else {
		session, err = client.GetSession(command.Context(), sessionID)
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
	session             *pyexec.Session
	console             *console
	outputDir           string
	options             []pyexec.Option // of each cell
	input               *lineReader
	displays            int // how many have been shown
	stopExitOnInterrupt func()
}

// run runs statements until the end of the input.
func (r *repl) run() error {
	if r.input.isTerminal {
		// A cell handles Ctrl-C, and the editor reads it as a key. In between, it must not end the program.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
		r.stopExitOnInterrupt()
	}
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
			fmt.Fprintln(os.Stderr)
			return nil
		case err == io.EOF && typed.isEmpty():
			return nil
		case err == io.EOF:
			return r.runCell(typed.take())
		case err != nil:
			return err
		}
		if typed.isEmpty() && slices.Contains(leaveWords, strings.TrimSpace(line)) {
			return nil
		}
		if code, complete := typed.add(line); complete {
			if err := r.runCell(code); err != nil {
				return err
			}
		}
	}
}

// runCell runs one cell and prints its output. On a terminal, an error of the server leaves the session usable.
func (r *repl) runCell(code string) error {
	result, err := r.waitForCell(code)
	if err == nil && result != nil {
		return r.print(result)
	}
	var output *outputError
	isFatal := errors.As(err, &output) || errors.Is(err, pyexec.ErrSessionClosed) ||
		errors.Is(err, pyexec.ErrUnauthorized)
	if err == nil || isFatal || !r.input.isTerminal {
		return err
	}
	r.console.error("%s", err)
	return nil
}

// waitForCell runs one cell. It returns nil if the user stops waiting for it.
//
// With a key, the client sends the request again if the connection was closed while the user typed.
func (r *repl) waitForCell(code string) (*pyexec.Result, error) {
	printer := newEventPrinter(r.console, true, false)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 2)
	if r.input.isTerminal {
		signal.Notify(signals, syscall.SIGINT)
		defer signal.Stop(signals)
		go r.interruptOn(ctx, signals, cancel)
	}
	options := append(slices.Clone(r.options), pyexec.WithIdempotencyKey(rand.Text()))
	for event, err := range r.session.Stream(ctx, code, options...) {
		if err == nil {
			err = printer.show(event)
		}
		if err != nil && ctx.Err() != nil && printer.id() != "" {
			r.console.error("stopped waiting; %s continues", printer.id())
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return printer.result, nil
}

// interruptOn interrupts the cell at the first signal, and cancels the wait at the second one.
func (r *repl) interruptOn(ctx context.Context, signals <-chan os.Signal, cancel context.CancelFunc) {
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		if !first {
			cancel()
			return
		}
		go func() {
			if _, err := r.session.Interrupt(ctx); err != nil && ctx.Err() == nil {
				r.console.error("cannot interrupt the code: %s (press Ctrl-C again to stop waiting)", err)
			}
		}()
	}
}

func (r *repl) print(result *pyexec.Result) error {
	if result.Value != nil && *result.Value != "None" {
		if err := r.console.write("stdout", []byte(*result.Value+"\n")); err != nil {
			return err
		}
	}
	if err := outputDisplays(result, r.outputDir, r.console, true, r.displays+1); err != nil {
		return err
	}
	r.displays += len(result.Displays)
	if _, err := printResult(result, r.console, false); err != nil {
		return err
	}
	if result.InterpreterRestarted {
		r.console.error("the session has a new interpreter; its variables are lost")
	}
	return nil
}
