package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	pyexec "github.com/python-executor/golang-client"
)

// phaseNames are the phases as the status line shows them.
var phaseNames = map[string]string{
	"submitted": "queued", "claimed": "queued", "released": "queued",
	"preparing": "installing", "running": "running",
}

// hints are the starts of sentences that the server appends to the error of a program.
var hints = []string{
	"(the network is disabled",
	"(files in /work and /tmp",
	"(the sandbox has no module",
	"(this run has no standard input",
	"(the program reached the limit",
}

// fieldsOfHints matches a field of requests that hints name before the flag that sets it. Users do not see the fields.
var fieldsOfHints = regexp.MustCompile(`(?:requirements_txt|stdin|config\.\w+(?:: false)?), (?:or )?--`)

// eventPrinter prints events as they arrive. output: print the program's output. phases: print every change of
// phase and the output of the setup. printed: streams of the result that have been printed; until the program starts,
// its stderr is that of the setup.
type eventPrinter struct {
	console        *console
	output, phases bool
	result         *pyexec.Result
	printed        map[string]bool
	started        bool
	setup          printableStream

	lock        sync.Mutex
	executionID string
}

func newEventPrinter(console *console, output, phases bool) *eventPrinter {
	return &eventPrinter{console: console, output: output, phases: phases, printed: map[string]bool{}}
}

// id returns the execution ID, or an empty string if it is still unknown. It is safe for concurrent use.
func (p *eventPrinter) id() string {
	p.lock.Lock()
	defer p.lock.Unlock()
	return p.executionID
}

// namingLostExecution adds to the error of a connection that is lost for good how to follow the execution, which may
// still run.
func (p *eventPrinter) namingLostExecution(err error) error {
	var lost *pyexec.ConnectionError
	if p.id() == "" || p.result != nil || (!errors.As(err, &lost) && !errors.Is(err, pyexec.ErrUnavailable)) {
		return err
	}
	return fmt.Errorf("%w; %s may still run: python-executor follow %s", err, p.id(), p.id())
}

// show prints one event.
func (p *eventPrinter) show(event pyexec.Event) error {
	switch event := event.(type) {
	case pyexec.Output:
		if !p.started { // when a setup has failed, the server sends its output as stderr
			return p.showSetup(event.Data)
		}
		if p.output {
			p.printed[event.Stream] = true
			return p.console.write(event.Stream, event.Data)
		}
	case pyexec.Setup:
		return p.showSetup(event.Data)
	case pyexec.Lifecycle:
		p.lock.Lock()
		p.executionID = firstOf(event.ExecutionID, p.executionID)
		p.lock.Unlock()
		if event.Type == "running" {
			p.started = true
			clear(p.printed)
		}
		p.showPhase(event.Type)
	case pyexec.Ended:
		p.result = event.Result
		p.console.statusLine.close()
		if p.phases {
			p.console.info("%s", event.Result.Status)
		}
		if p.output {
			return p.showRest(event.Result)
		}
	}
	return nil
}

// showSetup prints output of the setup if phases or details are wanted. The result contains it if the setup failed.
func (p *eventPrinter) showSetup(data []byte) error {
	if p.console.quiet || !(p.phases || p.console.verbose) {
		return nil
	}
	p.printed["stderr"] = true
	return p.console.write("stderr", []byte(p.setup.next(data)))
}

func (p *eventPrinter) showPhase(phase string) {
	write := p.console.debug
	if p.phases {
		write = p.console.info
	} else if name, known := phaseNames[phase]; known {
		p.console.statusLine.show(name)
	}
	if phase == "submitted" {
		write("%s %s", p.id(), phase)
	} else {
		write("%s", phase)
	}
}

// showRest prints output that no event contained: the output of a setup that failed is only in the result.
func (p *eventPrinter) showRest(result *pyexec.Result) error {
	if !p.printed["stdout"] && result.Stdout != "" {
		if err := p.console.write("stdout", []byte(result.Stdout)); err != nil {
			return err
		}
	}
	if !p.printed["stderr"] && result.Stderr != "" {
		return p.console.write("stderr", stderrOf(result, p.started))
	}
	return nil
}

// stderrOf returns stderr of the result. If the program did not start, it is the output of the setup, which is escaped.
func stderrOf(result *pyexec.Result, started bool) []byte {
	if !started {
		return []byte(printable(result.Stderr))
	}
	return []byte(result.Stderr)
}

// reasonOf returns why the execution failed, without the output of the setup that the server repeats at the end.
func reasonOf(result *pyexec.Result) string {
	reason, repeated, found := strings.Cut(result.Error, ": ")
	if found && repeated != "" && result.ErrorType == "setup_failed" &&
		strings.Contains(oneLine(result.Stderr), oneLine(repeated)) {
		return reason
	}
	return firstOf(result.Error, "the server gives no reason")
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// hintOf returns the server's hint why the program may have failed, or an empty string. Without an exception,
// the rest of the error belongs to it, such as the name of the signal.
func hintOf(result *pyexec.Result) string {
	first := len(result.Error)
	for _, hint := range hints {
		if start := strings.LastIndex(result.Error, hint); start >= 0 {
			first = min(first, start)
		}
	}
	var parts []string
	if message := strings.TrimRight(result.Error[:first], " "); message != "" && result.ErrorType == "" {
		parts = append(parts, message)
	}
	if first < len(result.Error) {
		text := fieldsOfHints.ReplaceAllString(result.Error[first:], "--")
		text = strings.TrimSuffix(strings.TrimPrefix(text, "("), ")")
		parts = append(parts, strings.ReplaceAll(text, ") (", "; "))
	}
	return strings.Join(parts, "; ")
}

// printResult prints how the execution ended, unless its output already says so, and returns the exit code.
func printResult(result *pyexec.Result, console *console, asJSON bool) (int, error) {
	switch {
	case asJSON:
		if err := console.write("stdout", append(formatJSON(result.Raw), '\n')); err != nil {
			return 0, err
		}
	case result.Status == pyexec.Killed:
		console.error("%s was killed", result.ExecutionID)
	case result.Status == pyexec.Failed:
		kind := ""
		if result.ErrorType != "" {
			kind = " (" + result.ErrorType + ")"
		}
		console.error("execution failed%s: %s", kind, reasonOf(result))
	default:
		if hint := hintOf(result); hint != "" {
			console.info("%s", hint)
		}
	}
	// What was printed while the program ran can be more.
	if result.Truncated.Stdout {
		console.info("the server stored only the beginning of stdout; python-executor logs returns no more than that")
	}
	if result.Truncated.Stderr {
		console.info("the server stored only the beginning of stderr; python-executor logs returns no more than that")
	}
	if result.Truncated.Result {
		console.info("only the beginning of result was stored")
	}
	if result.Truncated.Displays {
		console.info("some displays were dropped: they exceed the server's limit, or are malformed")
	}
	return exitCodeOf(result), nil
}
