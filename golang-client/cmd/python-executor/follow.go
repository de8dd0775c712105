package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

func (p *program) follow() *cobra.Command {
	var tail bool
	var outputDir string
	command := &cobra.Command{
		Use:   "follow [flags] ID",
		Short: "Tell an execution's phases, print its output, and exit as its program did.",
		Long: "Tell an execution's phases on standard error, print its output, and exit as its program did.\n\n" +
			"Ctrl-C leaves; the execution goes on.",
		Args: exactly("ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			client, err := p.flags.client(command)
			if err != nil {
				return err
			}
			console := newConsole(&p.flags)
			live := newLive(console, tail, true)
			for event, err := range client.Events(command.Context(), arguments[0], "") {
				if err == nil {
					err = live.show(event)
				}
				if err != nil {
					return err
				}
			}
			if !tail {
				if err := printOutput(command.Context(), client, live.result, console); err != nil {
					return err
				}
			}
			if err := bringFiles(command.Context(), client, live.result, outputDir, console); err != nil {
				return err
			}
			p.code, err = conclude(live.result, console, false)
			return err
		},
	}
	command.Flags().BoolVar(&tail, "tail", false, "Print the output as it comes, not at the end.")
	command.Flags().StringVar(&outputDir, "output-dir", "", "Bring its output files to this `DIR`.")
	return command
}

// bringFiles says so where somebody asks for files and there are none, or there are some and nobody asks.
func bringFiles(ctx context.Context, client *pyexec.Client, result *pyexec.Result, outputDir string, console *console) error {
	switch {
	case outputDir == "" && len(result.Files) > 0:
		console.note("it has output files: follow %s --output-dir DIR brings them", result.ExecutionID)
	case outputDir != "" && len(result.Files) == 0:
		console.note("it has no output files: submit --output-file named none, or none that it left")
	}
	if outputDir == "" {
		return nil
	}
	return bringBack(ctx, client, result, outputDir, console)
}

// printOutput prints the bytes themselves: the result's text has replaced what is not UTF-8.
func printOutput(ctx context.Context, client *pyexec.Client, result *pyexec.Result, console *console) error {
	texts := map[string]string{"stdout": result.Stdout, "stderr": result.Stderr}
	for _, stream := range []string{"stdout", "stderr"} {
		if texts[stream] == "" {
			continue
		}
		content, err := client.Logs(ctx, result.ExecutionID, pyexec.OnlyStream(stream))
		if err != nil {
			return err
		}
		if err := printAll(content, stream, console); err != nil {
			return err
		}
	}
	return nil
}

func printAll(content io.ReadCloser, stream string, console *console) error {
	defer content.Close()
	buffer := make([]byte, 64<<10)
	for {
		count, problem := content.Read(buffer)
		if count > 0 {
			if err := console.write(stream, buffer[:count]); err != nil {
				return err
			}
		}
		if problem == io.EOF {
			return nil
		}
		if problem != nil {
			return problem
		}
	}
}
