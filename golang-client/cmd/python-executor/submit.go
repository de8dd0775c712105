package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (p *program) submit() *cobra.Command {
	var script scriptFlags
	command := &cobra.Command{
		Use:   "submit [flags] [INPUT] [-- SCRIPT ARGS]",
		Short: "Send code to be run, and print the execution's id alone.",
		RunE: func(command *cobra.Command, arguments []string) error {
			return p.hand(command, arguments, &script)
		},
	}
	script.addTo(command, true)
	return command
}

// hand hands the code over and prints the id.
func (p *program) hand(command *cobra.Command, arguments []string, script *scriptFlags) error {
	if script.outputDir != "" {
		return wrong(command,
			"--output-dir: nothing is waited for here; to bring the files, use follow ID --output-dir DIR")
	}
	console := newConsole(&p.flags)
	defer console.line.end()
	source, options, err := script.request(command, arguments, &p.flags, console)
	if err != nil {
		return err
	}
	client, err := p.flags.client(command)
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
	return console.write("stdout", []byte(id+"\n"))
}
