package main

import (
	"github.com/spf13/cobra"
)

func (p *program) eval() *cobra.Command {
	var script scriptFlags
	command := &cobra.Command{
		Use:   "eval [flags] CODE [-- SCRIPT ARGS]",
		Short: "Run CODE (- reads standard input) and print what it prints, then its last expression's value.",
		RunE: func(command *cobra.Command, arguments []string) error {
			return p.evaluate(command, arguments, &script)
		},
	}
	script.addTo(command, false)
	return command
}

func (p *program) evaluate(command *cobra.Command, arguments []string, script *scriptFlags) error {
	own, rest, err := split(command, arguments, 1)
	if err != nil {
		return err
	}
	if len(own) == 0 {
		return wrong(command, "Missing argument 'CODE'.")
	}
	if p.flags.detached {
		return wrong(command, "eval waits for its value: --async is for run and submit")
	}
	code := own[0]
	if code == "-" {
		if code, err = readText(command, "-", "CODE"); err != nil {
			return err
		}
	}
	options, err := script.options(command, rest, own[0] == "-")
	if err != nil {
		return err
	}
	client, err := p.flags.client(command)
	if err != nil {
		return err
	}
	result, err := client.Eval(command.Context(), code, append(options, p.flags.options()...)...)
	if err != nil {
		return err
	}
	console := newConsole(&p.flags)
	if !script.asJSON {
		if err := console.write("stdout", []byte(result.Stdout)); err != nil {
			return err
		}
		if err := console.write("stderr", []byte(result.Stderr)); err != nil {
			return err
		}
		if result.Value != nil && *result.Value != "None" {
			if err := console.write("stdout", []byte(*result.Value+"\n")); err != nil {
				return err
			}
		}
	}
	if err := bringBack(command.Context(), client, result, firstOf(script.outputDir, "."), console); err != nil {
		return err
	}
	p.code, err = conclude(result, console, script.asJSON)
	return err
}
