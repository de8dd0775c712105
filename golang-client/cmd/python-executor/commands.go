package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// program is one call of the command line.
type program struct {
	flags       flags
	code        int // the exit code of a command that went well
	stopLeaving func()
}

// execute runs the command line and gives its exit code.
func execute(arguments []string, stopLeaving func()) (int, error) {
	p := &program{stopLeaving: stopLeaving}
	root := p.root()
	root.SetArgs(asCommand(root, arguments))
	if err := root.Execute(); err != nil {
		return exitNotRun, err
	}
	return p.code, nil
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "python-executor [flags] COMMAND",
		Short: "Run Python in throw-away sandboxes on a python-executor server.",
		Long: "Run Python in throw-away sandboxes on a python-executor server.\n\n" +
			"Without a command: run. `cat main.py | python-executor` runs what it reads.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		// The first word may be a file as well: the shell knows which there are.
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(command *cobra.Command, _ []string) error {
			if show, _ := command.Flags().GetBool("version"); show {
				return p.printVersion()
			}
			return command.Help()
		},
	}
	p.flags.addTo(root.PersistentFlags())
	root.PersistentFlags().BoolP("help", "h", false, "Show this message and exit.")
	root.Flags().Bool("version", false, "Show the version.")
	root.SetFlagErrorFunc(wrongFlag)
	root.SetHelpCommand(&cobra.Command{Hidden: true}) // asCommand makes --help of it
	root.AddCommand(p.run(), p.submit(), runsNothing(p.follow()), runsNothing(p.logs()), runsNothing(p.kill()),
		runsNothing(p.list()), p.eval(), runsNothing(p.version()), runsNothing(p.completion()))
	return root
}

// runsNothing has a command take the flags that say how to run, as every command does, and not list them.
func runsNothing(command *cobra.Command) *cobra.Command {
	command.SetHelpFunc(func(command *cobra.Command, arguments []string) {
		for _, name := range howToRun {
			command.InheritedFlags().Lookup(name).Hidden = true
		}
		command.Root().HelpFunc()(command, arguments)
	})
	return command
}

func wrongFlag(command *cobra.Command, err error) error {
	var value *pflag.InvalidValueError
	if errors.As(err, &value) {
		return wrong(command, "--%s %s: %s", value.GetFlag().Name, value.GetValue(), errors.Unwrap(value))
	}
	return wrong(command, "%s", err)
}

// exactly takes one argument, and names it where it is missing.
func exactly(name string) cobra.PositionalArgs {
	return func(command *cobra.Command, arguments []string) error {
		switch {
		case len(arguments) == 0:
			return wrong(command, "Missing argument '%s'.", name)
		case len(arguments) > 1:
			return wrong(command, "Got unexpected extra argument (%s)", arguments[1])
		}
		return nil
	}
}

func none(command *cobra.Command, arguments []string) error {
	if len(arguments) > 0 {
		return wrong(command, "Got unexpected extra argument (%s)", arguments[0])
	}
	return nil
}
