package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version string

// bashCompletion is a completion script that asks this program for the candidates. Unlike cobra's own script, it
// does not need the package bash-completion, which many machines lack.
const bashCompletion = `_python_executor() {
    local line directive=0
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :*) directive=${line#:} ;;
            "") ;;
            "$2"*) COMPREPLY+=("$line") ;;
        esac
    done < <("$1" __completeNoDesc "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if ((directive & 4)); then
        compopt +o default 2>/dev/null
    fi
}
complete -o default -F _python_executor python-executor
`

// app is one invocation of the command line.
type app struct {
	flags               flags
	arguments           []string // with the command first
	exitCode            int      // of a command that succeeded
	stopExitOnInterrupt func()
}

// execute runs the command line and returns its exit code. stopExitOnInterrupt ends the exit on Ctrl-C.
func execute(arguments []string, stopExitOnInterrupt func()) (int, error) {
	a := &app{stopExitOnInterrupt: stopExitOnInterrupt}
	root := a.root()
	a.arguments = commandFirst(root, arguments)
	root.SetArgs(a.arguments)
	if err := root.Execute(); err != nil {
		return exitNotRun, err
	}
	return a.exitCode, nil
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "python-executor [flags] COMMAND",
		Short: "Run Python code in isolated sandboxes on a python-executor server.",
		Long: "Run Python code in isolated sandboxes on a python-executor server.\n\n" +
			"Without a command, the input is run: cat main.py | python-executor",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		// The first word may also be a file, which the shell completes.
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		Args:              cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, given []string) error {
			if len(given) > 0 { // only `help NAME` leads to an unknown name
				return noSuchCommand(command, given[0])
			}
			if show, _ := command.Flags().GetBool("version"); show {
				return a.printVersion()
			}
			return command.Help()
		},
	}
	a.flags.addTo(root.PersistentFlags())
	root.PersistentFlags().BoolP("help", "h", false, "Show this message and exit.")
	root.Flags().Bool("version", false, "Print the version and exit.")
	root.SetFlagErrorFunc(a.flagError)
	root.SetHelpCommand(&cobra.Command{Hidden: true}) // commandFirst turns `help` into --help
	root.AddCommand(a.run(), a.submit(), a.withoutRunFlags(a.follow()), a.withoutRunFlags(a.logs()),
		a.withoutRunFlags(a.kill()), a.withoutRunFlags(a.list()), a.withoutRunFlags(a.timeline()),
		a.withoutRunFlags(a.cluster()), hideFlags(a.eval(), "async"), a.session(), hideFlags(a.repl(), "async"),
		a.withoutRunFlags(a.mcp()), a.withoutRunFlags(a.version()), a.withoutRunFlags(a.completion()))
	return root
}

// hiddenFlags is the annotation with the inherited flags that the help of a command does not list.
const hiddenFlags = "hidden flags"

// hideFlags removes inherited flags from the help of a command.
func hideFlags(command *cobra.Command, names ...string) *cobra.Command {
	command.SetHelpFunc(func(command *cobra.Command, arguments []string) {
		for _, name := range names {
			command.InheritedFlags().Lookup(name).Hidden = true
		}
		command.Root().HelpFunc()(command, arguments)
	})
	if command.Annotations == nil {
		command.Annotations = map[string]string{}
	}
	command.Annotations[hiddenFlags] = strings.Join(names, " ")
	return command
}

// withoutRunFlags removes the flags of a run from the help of a command that runs nothing. The command rejects them with
// an error that names the commands that take them.
func (a *app) withoutRunFlags(command *cobra.Command) *cobra.Command {
	hideFlags(command, runFlags...)
	run := command.RunE
	command.RunE = func(command *cobra.Command, arguments []string) error {
		for _, name := range runFlags {
			if command.InheritedFlags().Lookup(name).Changed {
				_, path, _ := strings.Cut(command.CommandPath(), " ")
				return usageErrorf(command, "--%s: %s runs nothing; %s take this flag", name, path, commandsWith(name))
			}
		}
		return run(command, arguments)
	}
	return command
}

// commandsWith returns the commands that take a flag of a run.
func commandsWith(flag string) string {
	if flag == "async" {
		return "run and submit"
	}
	return "run, submit, eval, session new and repl"
}

func (a *app) flagError(command *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) && invalid.GetFlag().Value.Type() == "bool" {
		return usageErrorf(command, "Option '--%s' does not take a value.", invalid.GetFlag().Name)
	}
	if errors.As(err, &invalid) {
		if asksForHelp(a.arguments, command.Flags()) {
			return pflag.ErrHelp
		}
		name := invalid.GetFlag().Name
		return usageErrorf(command, "--%s %s: %s%s", name, invalid.GetValue(), errors.Unwrap(invalid), units[name])
	}
	var missing *pflag.ValueRequiredError
	if errors.As(err, &missing) {
		name := "--" + missing.GetSpecifiedName()
		if missing.GetSpecifiedShortnames() != "" {
			name = name[1:]
		}
		return usageErrorf(command, "Option '%s' requires an argument.", name)
	}
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		return usageErrorf(command, "%s", noSuchOption(command, unknown))
	}
	return usageErrorf(command, "%s", err)
}

// noSuchOption returns the error message of click, which the Python program uses.
func noSuchOption(command *cobra.Command, unknown *pflag.NotExistError) string {
	hint := ""
	if slices.Contains([]string{"run", "submit", "eval"}, command.Name()) {
		hint = " Arguments of the script go after --."
	}
	if letters := []rune(unknown.GetSpecifiedShortnames()); len(letters) > 0 {
		if letters[0] == 'c' {
			hint = " eval runs source text."
		}
		return fmt.Sprintf("No such option '-%c'.%s", letters[0], hint)
	}
	var names []string
	command.Flags().VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden || slices.Contains(strings.Fields(command.Annotations[hiddenFlags]), flag.Name) {
			return // the help does not list it
		}
		names = append(names, "--"+flag.Name)
	})
	name := "--" + unknown.GetSpecifiedName()
	return fmt.Sprintf("No such option '%s'.%s%s", name, didYouMean(name, names), hint)
}

// noSuchCommand reports a name that is not a command of parent.
func noSuchCommand(parent *cobra.Command, name string) error {
	return usageErrorf(parent, "No such command '%s'.%s", name, didYouMean(name, commandNames(parent)))
}

// commandNames returns the names of the commands that help lists.
func commandNames(parent *cobra.Command) []string {
	var names []string
	for _, command := range parent.Commands() {
		if !command.Hidden {
			names = append(names, command.Name())
		}
	}
	return names
}

// arguments accepts the arguments with these names; the first `required` ones must be there.
func arguments(required int, names ...string) cobra.PositionalArgs {
	return func(command *cobra.Command, given []string) error {
		switch {
		case len(given) < required:
			return usageErrorf(command, "Missing argument '%s'.", names[len(given)])
		case len(given) > len(names):
			return usageErrorf(command, "Got unexpected extra argument (%s)", given[len(names)])
		}
		return nil
	}
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version.",
		Args:  arguments(0),
		RunE:  func(*cobra.Command, []string) error { return a.printVersion() },
	}
}

// mcp explains what to use instead: the protocol's SDK is part of the Python command line only.
func (a *app) mcp() *cobra.Command {
	const short = "Serve MCP on standard input and output (not in this program)."
	return &cobra.Command{
		Use:   "mcp",
		Short: short,
		Long: short + "\n\nFor a host that starts a command, for example:\n\n" +
			"claude mcp add python -- python-executor mcp --server URL\n\n" +
			"A host that connects to URLs can use /mcp of the server instead.",
		Args: arguments(0),
		RunE: func(command *cobra.Command, _ []string) error {
			return usageErrorf(command, "this program does not serve MCP: connect the host to %s/mcp, "+
				"or use the python-executor that pip installs", strings.TrimRight(a.flags.server, "/"))
		},
	}
}

func (a *app) printVersion() error {
	return newConsole(&a.flags).write("stdout", []byte("python-executor "+versionText()+"\n"))
}

// versionText returns the version that the build set, else the module version that `go install` recorded.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func (a *app) completion() *cobra.Command {
	const short = "Print a shell completion script."
	return &cobra.Command{
		Use:       "completion [bash|zsh|fish]",
		Short:     short,
		Long:      short + "\n\nFor bash: source <(python-executor completion bash)",
		Args:      arguments(1, "SHELL"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(command *cobra.Command, arguments []string) error {
			root := command.Root()
			switch arguments[0] {
			case "bash":
				_, err := fmt.Print(bashCompletion)
				return err
			case "zsh":
				return root.GenZshCompletion(os.Stdout)
			case "fish":
				return root.GenFishCompletion(os.Stdout, true)
			}
			return usageErrorf(command, "'%s' is not one of bash, zsh, fish", arguments[0])
		},
	}
}
