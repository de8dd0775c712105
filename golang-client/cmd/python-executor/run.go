package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

func (a *app) run() *cobra.Command {
	var script scriptFlags
	command := &cobra.Command{
		Use:   "run [flags] [INPUT] [-- SCRIPT ARGS]",
		Short: "Run code and exit with the program's exit code.",
		Long: "Run code and exit with the program's exit code.\n\n" +
			"INPUT is a file, a directory or a .tar archive. Without INPUT, or if it is -, the code is read\n" +
			"from standard input. Ctrl-C kills the execution; a second Ctrl-C exits at once.",
		RunE: func(command *cobra.Command, arguments []string) (err error) {
			if a.flags.detached {
				return a.submitCode(command, arguments, &script)
			}
			console := newConsole(&a.flags)
			source, options, err := script.request(command, arguments, &a.flags, console)
			if err != nil {
				return err
			}
			if script.outputDir != "" || (!script.asJSON && declaredProtocol() != "") {
				options = append(options, pyexec.WithDisplays())
			}
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			if a.exitCode, err = a.runCode(client, source, options, console, &script); err == nil {
				script.noteUnusedStdin(command, arguments, console)
			}
			return err
		},
	}
	script.addTo(command, true)
	return command
}

func (a *app) runCode(
	client *pyexec.Client, source pyexec.Source, options []pyexec.Option, console *console, script *scriptFlags,
) (int, error) {
	defer console.statusLine.close()
	printer := newEventPrinter(console, !script.asJSON, false)
	work := func(ctx context.Context) (int, error) {
		for event, err := range client.Stream(ctx, source, options...) {
			if err == nil {
				err = printer.show(event)
			}
			if err != nil {
				return 0, err
			}
		}
		directory := firstOf(script.outputDir, ".")
		if err := downloadOutputFiles(ctx, client, printer.result, directory, console); err != nil {
			return 0, err
		}
		if err := outputDisplays(printer.result, script.outputDir, console, !script.asJSON, false, 1); err != nil {
			return 0, err
		}
		return printResult(printer.result, console, script.asJSON)
	}
	onInterrupt := func() bool {
		id := printer.id()
		if id == "" {
			return false // closing the connection is enough: the server then kills the execution
		}
		console.info("killing %s (press Ctrl-C again to exit at once)", id)
		return kill(client, id, console)
	}
	code, err := interruptible(a.stopExitOnInterrupt, work, onInterrupt, handlesNone)
	var output *outputError
	if errors.As(err, &output) && printer.id() != "" && printer.result == nil {
		kill(client, printer.id(), console) // the output can no longer be written, so the execution is of no use
	}
	return code, printer.namingLostExecution(err)
}

// kill kills the execution and returns true, or prints the error and returns false.
func kill(client *pyexec.Client, id string, console *console) bool {
	if _, err := client.Kill(context.Background(), id); err != nil {
		console.error("cannot kill %s: %s", id, err)
		return false
	}
	return true
}

func (a *app) submit() *cobra.Command {
	var script scriptFlags
	command := &cobra.Command{
		Use:   "submit [flags] [INPUT] [-- SCRIPT ARGS]",
		Short: "Submit code and print the execution ID, without waiting.",
		Long: "Submit code and print the execution ID, without waiting.\n\n" +
			"INPUT is a file, a directory or a .tar archive. Without INPUT, or if it is -, the code is read\n" +
			"from standard input.",
		RunE: func(command *cobra.Command, arguments []string) error {
			return a.submitCode(command, arguments, &script)
		},
	}
	script.addTo(command, true)
	return command
}

func (a *app) submitCode(command *cobra.Command, arguments []string, script *scriptFlags) error {
	if script.outputDir != "" {
		return usageErrorf(command,
			"--output-dir: submit does not wait for output files; use follow ID --output-dir DIR")
	}
	console := newConsole(&a.flags)
	defer console.statusLine.close()
	source, options, err := script.request(command, arguments, &a.flags, console)
	if err != nil {
		return err
	}
	client, err := a.flags.client(command)
	if err != nil {
		return err
	}
	id, err := client.Submit(command.Context(), source, options...)
	if err != nil {
		return err
	}
	if script.asJSON {
		id = fmt.Sprintf(`{"execution_id": "%s"}`, id)
	}
	if err = console.write("stdout", []byte(id+"\n")); err == nil {
		script.noteUnusedStdin(command, arguments, console)
	}
	return err
}

func (a *app) eval() *cobra.Command {
	var script scriptFlags
	command := &cobra.Command{
		Use:   "eval [flags] CODE [-- SCRIPT ARGS]",
		Short: "Run CODE and print the value of its last expression.",
		Long: "Run CODE and print the value of its last expression.\n\n" +
			"If CODE is -, the code is read from standard input.",
		RunE: func(command *cobra.Command, arguments []string) error {
			return a.evalCode(command, arguments, &script)
		},
	}
	script.addTo(command, false)
	return command
}

func (a *app) evalCode(command *cobra.Command, arguments []string, script *scriptFlags) error {
	arguments, scriptArgs, err := splitArguments(command, arguments)
	if err != nil {
		return err
	}
	if len(arguments) == 0 {
		return usageErrorf(command, "Missing argument 'CODE'.")
	}
	if a.flags.detached {
		return usageErrorf(command, "--async: eval waits for the value; use run or submit")
	}
	console := newConsole(&a.flags)
	code, fromStdin := arguments[0], arguments[0] == "-"
	if mode, err := os.Stat(code); err == nil && mode.Mode().IsRegular() {
		console.info("%s is evaluated as source text; to run the file of this name, use run", printable(code))
	}
	if fromStdin {
		if code, err = readText(command, "-", "CODE"); err != nil {
			return err
		}
	}
	options, err := script.options(command, scriptArgs, fromStdin)
	if err != nil {
		return err
	}
	client, err := a.flags.client(command)
	if err != nil {
		return err
	}
	result, err := client.Eval(command.Context(), code, append(options, a.flags.options()...)...)
	if err != nil {
		return err
	}
	if !script.asJSON {
		if err := printEval(result, console); err != nil {
			return err
		}
	}
	directory := firstOf(script.outputDir, ".")
	if err := downloadOutputFiles(command.Context(), client, result, directory, console); err != nil {
		return err
	}
	if err := outputDisplays(result, script.outputDir, console, !script.asJSON, false, 1); err != nil {
		return err
	}
	if a.exitCode, err = printResult(result, console, script.asJSON); err == nil {
		script.noteUnusedStdin(command, arguments, console)
	}
	return err
}

func printEval(result *pyexec.Result, console *console) error {
	if err := console.write("stdout", []byte(result.Stdout)); err != nil {
		return err
	}
	if err := console.write("stderr", stderrOf(result, !result.StartedAt.IsZero())); err != nil {
		return err
	}
	if result.Value == nil || *result.Value == "None" {
		return nil
	}
	return console.write("stdout", []byte(*result.Value+"\n"))
}
