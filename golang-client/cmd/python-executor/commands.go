package main

import (
	"strings"

	"github.com/spf13/cobra"
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
	root.PersistentFlags().Bool("help", false, "Show this message and exit.")
	root.Flags().Bool("version", false, "Show the version.")
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error { return wrong(command, "%s", err) })
	root.SetHelpCommand(&cobra.Command{Hidden: true}) // none: a file may be called help
	root.AddCommand(p.run(), p.submit(), p.follow(), p.logs(), p.kill(), p.list(), p.eval(), p.version(),
		p.completion())
	return root
}

// isOurs says whether, after global flags, there is a command's name, or a flag that only the root has;
// otherwise if there is nothing at all. Arguments that name no command are run's.
func isOurs(root *cobra.Command, arguments []string, otherwise bool) bool {
	for position := 0; position < len(arguments); position++ {
		word := arguments[position]
		if word == "--help" || word == "--version" {
			return true
		}
		if word == "-" || !strings.HasPrefix(word, "-") {
			return isCommand(root, word)
		}
		known, takesNext := globalFlag(root, word)
		if !known {
			return false
		}
		if takesNext {
			position++
		}
	}
	return otherwise
}

func isCommand(root *cobra.Command, word string) bool {
	for _, command := range root.Commands() {
		if command.Name() == word {
			return true
		}
	}
	return false
}

// globalFlag says whether the word is one, and whether its value is the next word.
func globalFlag(root *cobra.Command, word string) (known, takesNext bool) {
	set := root.PersistentFlags()
	if !strings.HasPrefix(word, "--") {
		for _, letter := range word[1:] { // -qv; no short global flag takes a value
			if letter > 127 || set.ShorthandLookup(string(letter)) == nil {
				return false, false
			}
		}
		return true, false
	}
	name, _, hasValue := strings.Cut(word[2:], "=")
	flag := set.Lookup(name)
	if flag == nil {
		return false, false
	}
	return true, !hasValue && flag.NoOptDefVal == ""
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
