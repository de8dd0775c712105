package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

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
			options, err := settings.options(command, &a.flags, !term.IsTerminal(int(os.Stdin.Fd())))
			if err != nil {
				return err
			}
			if sessionID != "" {
				isGiven := func(name string) bool { return name != "timeout" && command.Flags().Changed(name) }
				if slices.ContainsFunc(sessionFlagNames, isGiven) || slices.ContainsFunc(runFlags, isGiven) {
					return usageErrorf(command, "--session: cannot be combined with flags that open a session")
				}
			}
			console := newConsole(&a.flags)
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			loop := &repl{
				client: client, console: console, outputDir: outputDir, input: newLineReader(),
				opening: &opening{console: console}, ctrlC: make(chan struct{}, 3),
			}
			if sessionID != "" && a.flags.timeout > 0 {
				loop.options = append(loop.options, pyexec.WithTimeout(a.flags.timeout.duration()))
			}
			a.exitCode, err = loop.runUntilSignal(a.stopExitOnInterrupt, sessionID, options)
			loop.input.close()
			return errors.Join(err, loop.opening.close())
		},
	}
	command.Flags().StringVar(&sessionID, "session", "", "Use the session `ID`, and leave it open.")
	settings.addTo(command)
	command.Flags().StringVar(&outputDir, "output-dir", "", "Save displays such as figures in `DIR` as display-1.png.")
	return command
}

// repl reads statements and runs each as a cell.
type repl struct {
	client    *pyexec.Client
	session   *pyexec.Session
	console   *console
	outputDir string
	options   []pyexec.Option // of each cell
	input     *lineReader
	opening   *opening
	ctrlC     chan struct{} // for the cell that runs
	displays  int           // how many have been shown
	isClosed  bool          // the last cell failed because the session was closed
}

// runUntilSignal opens a session, or uses that with this ID, and runs until the end of the input or a signal that ends
// the program. It returns the exit code.
func (r *repl) runUntilSignal(
	stopExitOnInterrupt func(), sessionID string, options []pyexec.Option,
) (int, error) {
	work := func(ctx context.Context) (code int, err error) {
		end := "Ctrl-D closes the session"
		if sessionID == "" {
			r.console.statusLine.show("opening a session")
			r.session, err = r.opening.open(ctx, r.client, options)
		} else if r.session, err = r.openSession(ctx, sessionID); err == nil {
			r.opening.use(r.session)
			end = "Ctrl-D exits, the session stays open"
		}
		if err != nil || r.session == nil {
			return exitNotRun, err
		}
		r.greet(end)
		return r.run(ctx)
	}
	onInterrupt := func() bool { return sessionID == "" && r.opening.onInterrupt() }
	return interruptible(stopExitOnInterrupt, work, onInterrupt, r.handles)
}

// openSession returns the session with this ID. It fails if the session is closed, before the first line is read.
func (r *repl) openSession(ctx context.Context, sessionID string) (*pyexec.Session, error) {
	session, err := r.client.GetSession(ctx, sessionID)
	if err == nil && !session.Info().IsOpen() {
		return nil, fmt.Errorf("session %s is closed (%s); open a new one", sessionID, session.Info().CloseReason)
	}
	return session, err
}

// handles reports whether a signal is for the cell that runs, if any, and does not end the program: Ctrl-C on a terminal.
func (r *repl) handles(received os.Signal) bool {
	if received != syscall.SIGINT || !r.input.isTerminal || !r.opening.isOpen() {
		return false
	}
	select {
	case r.ctrlC <- struct{}{}:
	default:
	}
	return true
}

func (r *repl) greet(end string) {
	r.console.info("session %s (%s)", r.session.ID, r.session.Info().DockerImage)
	if r.input.isTerminal {
		r.console.info("Ctrl-C interrupts the code, %s", end)
	}
}

// run runs statements until the end of the input and returns the exit code. On a terminal, it is 0, unless the session was
// closed. Otherwise, the first statement that fails is the last one, and its exit code is returned.
func (r *repl) run(ctx context.Context) (int, error) {
	typed := statements{fromFile: !r.input.isTerminal}
	for {
		prompt := ">>> "
		if !typed.isEmpty() {
			prompt = "... "
		}
		r.startLine()
		line, err := r.input.read(prompt)
		switch {
		case errors.Is(err, errInterrupted):
			fmt.Fprintln(os.Stderr, "\nKeyboardInterrupt")
			typed.take()
			continue
		case err == io.EOF && r.input.isTerminal && !typed.isEmpty():
			fmt.Fprintln(os.Stderr) // as in Python, Ctrl-D in a statement ends only the statement
			exitCode, err := r.runCell(ctx, typed.take())
			if err != nil || r.isClosed {
				return exitCode, err
			}
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
		if block, ended := typed.takeBefore(line); ended {
			if exitCode, err := r.runCell(ctx, block); err != nil || exitCode != 0 {
				return exitCode, err
			}
		}
		if typed.isEmpty() && slices.Contains(leaveWords, strings.TrimSpace(line)) {
			return 0, nil
		}
		if code, complete := typed.add(line); complete {
			exitCode, err := r.runCell(ctx, code)
			if err != nil || exitCode != 0 && (r.isClosed || !r.input.isTerminal) {
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
	for len(r.ctrlC) > 0 {
		<-r.ctrlC // pressed before this cell
	}
	go r.interruptOnCtrlC(ctx, printer, cancel)
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

// interruptOnCtrlC interrupts the cell at the first Ctrl-C, kills it at the second one, and cancels the wait at the third
// one.
func (r *repl) interruptOnCtrlC(ctx context.Context, printer *eventPrinter, cancel context.CancelFunc) {
	for presses := 1; ; presses++ {
		select {
		case <-ctx.Done():
			return
		case <-r.ctrlC:
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

// startLine ends a line on the terminal that the output has left open: a prompt in its middle confuses the editor.
func (r *repl) startLine() {
	if r.input.isTerminal && r.console.hasOpenLine.Swap(false) {
		fmt.Println()
	}
}

func (r *repl) print(result *pyexec.Result) (int, error) {
	r.startLine()
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
	r.isClosed = result.ErrorType == "session_closed"
	if err == nil && result.InterpreterRestarted {
		r.console.error("the interpreter is restarted; its variables are lost")
	}
	return exitCode, err
}
