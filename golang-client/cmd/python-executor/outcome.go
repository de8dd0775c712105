package main

import (
	"strings"
	"sync"

	pyexec "github.com/python-executor/golang-client"
)

// live prints a run's events as they come. output: print what the program writes.
type live struct {
	console        *console
	output, phases bool
	result         *pyexec.Result
	streamed       map[string]bool

	lock        sync.Mutex
	executionID string
}

func newLive(console *console, output, phases bool) *live {
	return &live{console: console, output: output, phases: phases, streamed: map[string]bool{}}
}

// id is the execution's, empty as long as the server has not told it. A signal may ask meanwhile.
func (l *live) id() string {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.executionID
}

func (l *live) show(event pyexec.Event) error {
	switch event := event.(type) {
	case pyexec.Output:
		l.streamed[event.Stream] = true
		if l.output {
			return l.console.write(event.Stream, event.Data)
		}
	case pyexec.Setup:
		return l.showSetup(event.Data)
	case pyexec.Lifecycle:
		l.lock.Lock()
		l.executionID = firstOf(event.ExecutionID, l.executionID)
		l.lock.Unlock()
		l.showPhase(event.Type)
	case pyexec.Ended:
		l.result = event.Result
		l.console.line.end()
		if l.phases {
			l.console.note("%s", event.Result.Status)
		}
		if l.output {
			return l.showRest(event.Result)
		}
	}
	return nil
}

// showSetup is for those who asked for every step. When setup fails, the result has it for all.
func (l *live) showSetup(data []byte) error {
	if l.console.quiet || !(l.phases || l.console.verbose) {
		return nil
	}
	l.streamed["stderr"] = true
	return l.console.write("stderr", data)
}

var spoken = map[string]string{
	"submitted": "queued", "claimed": "queued", "released": "queued",
	"preparing": "installing", "running": "running",
}

func (l *live) showPhase(phase string) {
	tell := l.console.detail
	if l.phases {
		tell = l.console.note
	} else if word, known := spoken[phase]; known {
		l.console.line.show(word)
	}
	if phase == "submitted" {
		tell("%s %s", l.id(), phase)
	} else {
		tell("%s", phase)
	}
}

// showRest shows what the result alone has: setup's output, when setup failed, is no output of the program.
func (l *live) showRest(result *pyexec.Result) error {
	if !l.streamed["stdout"] && result.Stdout != "" {
		if err := l.console.write("stdout", []byte(result.Stdout)); err != nil {
			return err
		}
	}
	if !l.streamed["stderr"] && result.Stderr != "" {
		return l.console.write("stderr", []byte(result.Stderr))
	}
	return nil
}

// noNetwork starts what the server adds to the error of a program that failed for want of a network.
const noNetwork = "(the network is disabled"

// networkHint is the server's own words after the program's; empty if it has none. The program's were printed
// as they came.
func networkHint(result *pyexec.Result) string {
	start := strings.LastIndex(result.Error, noNetwork)
	if start < 0 {
		return ""
	}
	return strings.Trim(result.Error[start:], "()")
}

// conclude tells how it ended, where the program's own output does not, and gives the exit code.
func conclude(result *pyexec.Result, console *console, asJSON bool) (int, error) {
	switch {
	case asJSON:
		if err := console.write("stdout", append(spacedJSON(result.Raw), '\n')); err != nil {
			return 0, err
		}
	case result.Status == pyexec.Killed:
		console.problem("%s was killed", result.ExecutionID)
	case result.Status == pyexec.Failed:
		kind := ""
		if result.ErrorType != "" {
			kind = " (" + result.ErrorType + ")"
		}
		console.problem("the run failed%s: %s", kind, firstOf(result.Error, "the server gives no reason"))
	default:
		if hint := networkHint(result); hint != "" {
			console.note("%s", hint)
		}
	}
	if result.Truncated.Stdout {
		console.note("stdout was cut: it was too long")
	}
	if result.Truncated.Stderr {
		console.note("stderr was cut: it was too long")
	}
	return ofResult(result), nil
}
