package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

func (p *program) run() *cobra.Command {
	var script scriptFlags
	command := &cobra.Command{
		Use:   "run [flags] [INPUT] [-- SCRIPT ARGS]",
		Short: "Run a file, a directory, a .tar, or standard input, and exit as the program does.",
		Long: "Run a file, a directory, a .tar, or standard input, and exit as the program does.\n\n" +
			"Ctrl-C ends the run; a second one leaves at once.",
		RunE: func(command *cobra.Command, arguments []string) (err error) {
			console := newConsole(&p.flags)
			if p.flags.detached {
				return p.hand(command, arguments, &script)
			}
			source, options, err := script.request(command, arguments, &p.flags, console)
			if err != nil {
				return err
			}
			client, err := p.flags.client(command)
			if err != nil {
				return err
			}
			p.code, err = runLive(p.stopLeaving, client, source, options, console, &script)
			return err
		},
	}
	script.addTo(command, true)
	return command
}

func runLive(
	stopLeaving func(), client *pyexec.Client, source pyexec.Source, options []pyexec.Option,
	console *console, script *scriptFlags,
) (int, error) {
	defer console.line.end()
	live := newLive(console, !script.asJSON, false)
	story := func(ctx context.Context) (int, error) {
		for event, err := range client.Stream(ctx, source, options...) {
			if err == nil {
				err = live.show(event)
			}
			if err != nil {
				return 0, err
			}
		}
		if err := bringBack(ctx, client, live.result, firstOf(script.outputDir, "."), console); err != nil {
			return 0, err
		}
		return conclude(live.result, console, script.asJSON)
	}
	stop := func() bool {
		id := live.id()
		if id == "" {
			return false // hanging up ends whatever there may be
		}
		console.note("killing %s (Ctrl-C again leaves at once)", id)
		return kill(client, id, console)
	}
	code, err := interruptible(stopLeaving, story, stop)
	var unread *outputError
	if errors.As(err, &unread) && live.id() != "" && live.result == nil {
		kill(client, live.id(), console) // nobody can read what it prints any more
	}
	return code, err
}

// kill says whether it could be asked for.
func kill(client *pyexec.Client, id string, console *console) bool {
	if _, err := client.Kill(context.Background(), id); err != nil {
		console.problem("%s could not be killed: %s", id, err)
		return false
	}
	return true
}
