package main

import (
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

// scriptFlags are the flags of the commands that take code. eval has only those that do not concern an archive.
type scriptFlags struct {
	requirements, stdin, entrypoint, outputDir, webhookURL string
	env, files, preCommands, outputFiles                   []string
	noRequirements, displays, asJSON                       bool
}

func (s *scriptFlags) addTo(command *cobra.Command, archive bool) {
	set := command.Flags()
	set.SortFlags = false
	if archive {
		set.BoolVar(&s.displays, "displays", false,
			"Return what the program shows, such as figures of matplotlib.")
		set.StringArrayVar(&s.files, "file", nil, "Send the file `PATH`, keeping its relative path (repeatable).")
		set.StringVar(&s.entrypoint, "entrypoint", "", "Run the file at `PATH` inside the input.")
	}
	set.StringVar(&s.requirements, "requirements", "",
		"Install the packages listed in `FILE` before the run.")
	set.BoolVar(&s.noRequirements, "no-requirements", false,
		"Install neither the requirements.txt of the input nor the dependencies that the script names.")
	set.StringVar(&s.stdin, "stdin", "",
		"Read the program's standard input from `FILE`; - means this command's standard input.")
	set.StringArrayVarP(&s.env, "env", "e", nil,
		"Set an environment variable as `K[=V]`; without =V, use the local value (repeatable).")
	set.StringArrayVar(&s.preCommands, "pre-command", nil,
		"Run the shell command `CMD` as root during setup (repeatable).")
	set.StringArrayVar(&s.outputFiles, "output-file", nil,
		"Download the files under /work that match `GLOB` (repeatable).")
	set.StringVar(&s.outputDir, "output-dir", "",
		"Save output files in `DIR` [default: .], and displays such as figures as display-1.png.")
	set.StringVar(&s.webhookURL, "webhook-url", "",
		"Let the server send the result to `URL` when the execution has ended.")
	set.BoolVar(&s.asJSON, "json", false, "Print the result as one line of JSON.")
}

// splitArguments splits the arguments at --. Before it, there is at most one argument; those after it belong to the
// script.
func splitArguments(command *cobra.Command, arguments []string) (own, script []string, err error) {
	own = arguments
	if dash := command.ArgsLenAtDash(); dash >= 0 {
		own, script = arguments[:dash], arguments[dash:]
	}
	if len(own) > 1 {
		if file := command.Flags().Lookup("file"); file != nil && !file.Changed && own[0] != "-" {
			if _, err := os.Stat(own[0]); err != nil { // probably a mistyped command
				return nil, nil, usageErrorf(command, "%s: %s", own[0], explainMissing(command, own[0]))
			}
		}
		return nil, nil, usageErrorf(command, "unexpected argument '%s': put script arguments after --", own[1])
	}
	return own, script, nil
}

const notText = "must be UTF-8 text; send binary data as a file"

// options converts the flags to request options. It fails with a usageError for flags that are invalid or exclude
// each other.
func (s *scriptFlags) options(
	command *cobra.Command, scriptArgs []string, stdinIsCode bool,
) ([]pyexec.Option, error) {
	for _, name := range []string{"requirements", "stdin", "entrypoint", "output-dir", "webhook-url"} {
		if flag := command.Flags().Lookup(name); flag != nil && flag.Changed && flag.Value.String() == "" {
			return nil, usageErrorf(command, "--%s: must not be empty", name)
		}
	}
	if s.requirements != "" && s.noRequirements {
		return nil, usageErrorf(command, "--requirements and --no-requirements cannot be used together")
	}
	if s.stdin == "-" && stdinIsCode {
		return nil, usageErrorf(command, "--stdin -: the code is read from standard input already; give a file")
	}
	if err := checkRequirementsSource(command, s.requirements, stdinIsCode); err != nil {
		return nil, err
	}
	if s.requirements == "-" && s.stdin == "-" {
		return nil, usageErrorf(command, "--requirements -: --stdin - reads standard input already; give a file")
	}
	if !utf8.ValidString(strings.Join(scriptArgs, "")) {
		return nil, usageErrorf(command, "arguments after --: %s", notText)
	}
	options := []pyexec.Option{
		pyexec.WithEntrypoint(s.entrypoint),
		pyexec.WithArgs(scriptArgs...),
		pyexec.WithPreCommands(s.preCommands...),
		pyexec.WithOutputFiles(s.outputFiles...),
		pyexec.WithWebhookURL(s.webhookURL),
	}
	if s.displays {
		options = append(options, pyexec.WithDisplays())
	}
	if s.stdin != "" {
		text, err := readText(command, s.stdin, "--stdin")
		if err != nil {
			return nil, err
		}
		options = append(options, pyexec.WithStdin(text))
	}
	if s.noRequirements {
		options = append(options, pyexec.WithInlineRequirements(false))
	}
	variables, err := environment(command, s.env)
	if err != nil {
		return nil, err
	}
	options = append(options, variables...)
	if s.requirements != "" {
		text, err := readRequirementsFlag(command, s.requirements, "--requirements")
		if err != nil {
			return nil, err
		}
		options = append(options, pyexec.WithRequirements(text))
	}
	return options, nil
}

// checkRequirementsSource fails with a usageError if both the requirements and the code would be read from standard
// input.
func checkRequirementsSource(command *cobra.Command, requirements string, stdinIsCode bool) error {
	if requirements == "-" && stdinIsCode {
		return usageErrorf(command, "--requirements -: the code is read from standard input already; give a file")
	}
	return nil
}

// environment returns the variables that --env sets. It fails with a usageError if one has no name or no value.
func environment(command *cobra.Command, settings []string) ([]pyexec.Option, error) {
	var names []string
	values := map[string]string{}
	for _, setting := range settings {
		name, value, given := strings.Cut(setting, "=")
		if name == "" {
			return nil, usageErrorf(command, "--env %s: name missing before =", setting)
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				return nil, usageErrorf(command, "--env %s: not set in this environment; use %s=VALUE", name, name)
			}
		}
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return nil, usageErrorf(command, "--env %s: %s", name, notText)
		}
		if _, known := values[name]; !known {
			names = append(names, name)
		}
		values[name] = value
	}
	options := make([]pyexec.Option, len(names))
	for index, name := range names {
		options[index] = pyexec.WithEnv(name, values[name])
	}
	return options, nil
}

// request reads the input and the options of run and submit.
func (s *scriptFlags) request(
	command *cobra.Command, arguments []string, flags *flags, console *console,
) (pyexec.Source, []pyexec.Option, error) {
	arguments, scriptArgs, err := splitArguments(command, arguments)
	if err != nil {
		return pyexec.Source{}, nil, err
	}
	chosen, err := chooseInput(command, arguments, s.files)
	if err != nil {
		return pyexec.Source{}, nil, err
	}
	if chosen.unused != "" {
		console.info("ignoring %s: with --file, only the files that it names are sent", chosen.unused)
	}
	options, err := s.options(command, scriptArgs, chosen.isStdin)
	if err != nil {
		return pyexec.Source{}, nil, err
	}
	if chosen.requirements != "" && s.requirements == "" && !s.noRequirements {
		console.info("installing the requirements.txt of the input (--no-requirements disables this)")
		options = append(options, pyexec.WithRequirements(chosen.requirements))
	}
	return withProgress(chosen.source, console), append(options, flags.options()...), nil
}

// noteUnusedStdin prints a note if standard input has data that no argument uses. Call it at the end of a command: at
// its start, the writer of a pipe may not have written anything yet.
func (s *scriptFlags) noteUnusedStdin(command *cobra.Command, arguments []string, console *console) {
	names := s.files
	if len(names) == 0 {
		own, _, err := splitArguments(command, arguments)
		if err != nil || len(own) == 0 {
			return // the code is read from standard input
		}
		names = own
	}
	if hasUnusedStdin(append(slices.Clone(names), s.stdin, s.requirements)) {
		console.info("ignoring standard input: --stdin - passes it to the program")
	}
}
