package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

func (a *app) follow() *cobra.Command {
	var tail bool
	var outputDir string
	command := &cobra.Command{
		Use:   "follow [flags] ID",
		Short: "Follow an execution and exit with its exit code.",
		Long: "Follow an execution and exit with its exit code.\n\n" +
			"Phases are printed on standard error. Ctrl-C stops following; the execution continues.",
		Args: arguments(1, "ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			console := newConsole(&a.flags)
			printer := newEventPrinter(console, tail, true)
			for event, err := range client.Events(command.Context(), arguments[0], "") {
				if err == nil {
					err = printer.show(event)
				}
				if err != nil {
					return printer.namingLostExecution(err)
				}
			}
			if !tail {
				if err := printOutput(command.Context(), client, printer, console); err != nil {
					return err
				}
			}
			if err := downloadFiles(command.Context(), client, printer.result, outputDir, console); err != nil {
				return err
			}
			a.exitCode, err = printResult(printer.result, console, false)
			return err
		},
	}
	command.Flags().BoolVar(&tail, "tail", false, "Print output as it arrives, not at the end.")
	command.Flags().StringVar(&outputDir, "output-dir", "", "Download the output files and the displays to `DIR`.")
	return command
}

// downloadFiles downloads the output files if --output-dir was given; otherwise it prints how to get them.
func downloadFiles(
	ctx context.Context, client *pyexec.Client, result *pyexec.Result, outputDir string, console *console,
) error {
	if outputDir == "" {
		printSkippedFiles(result, console)
		if len(result.Files) > 0 {
			console.info("output files available: use follow %s --output-dir DIR", result.ExecutionID)
		}
		return outputDisplays(result, "", console, false, false, 1)
	}
	if len(result.Files) == 0 && len(result.FilesSkipped) == 0 && len(result.Displays) == 0 {
		console.info("no output files: submit had no --output-file, or no file matched")
	}
	if err := downloadOutputFiles(ctx, client, result, outputDir, console); err != nil {
		return err
	}
	return outputDisplays(result, outputDir, console, false, false, 1)
}

// printOutput prints the raw bytes of the streams that are not printed yet. In the result, invalid UTF-8 is replaced.
func printOutput(ctx context.Context, client *pyexec.Client, printer *eventPrinter, console *console) error {
	result := printer.result
	if !printer.started { // it has only the output of the setup
		if printer.printed["stderr"] {
			return nil
		}
		return console.write("stderr", stderrOf(result, false))
	}
	texts := map[string]string{"stdout": result.Stdout, "stderr": result.Stderr}
	for _, stream := range []string{"stdout", "stderr"} {
		if texts[stream] == "" || printer.printed[stream] {
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
		count, readErr := content.Read(buffer)
		if count > 0 {
			if err := console.write(stream, buffer[:count]); err != nil {
				return err
			}
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}
