package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

// scriptFlags are those of the commands that take code; eval has no archive, and only some of them.
type scriptFlags struct {
	requirements, stdin, entrypoint, outputDir string
	env, files, preCommands, outputFiles       []string
	noRequirements, asJSON                     bool
}

func (s *scriptFlags) addTo(command *cobra.Command, archive bool) {
	set := command.Flags()
	set.SortFlags = false
	if archive {
		set.StringArrayVar(&s.files, "file", nil, "Send the file `PATH` under its relative path (repeatable).")
		set.StringVar(&s.entrypoint, "entrypoint", "", "Which file of the input to run: its `PATH`.")
		set.BoolVar(&s.noRequirements, "no-requirements", false,
			"Leave the requirements.txt at the input's root alone.")
	}
	set.StringVar(&s.requirements, "requirements", "",
		"Install what the requirements.txt `FILE` lists before the run.")
	set.StringVar(&s.stdin, "stdin", "", "The `FILE` that the program reads; - is this command's own input.")
	set.StringArrayVarP(&s.env, "env", "e", nil, "Set a variable, as `K[=V]`; without =V to its value here.")
	set.StringArrayVar(&s.preCommands, "pre-command", nil, "Run `CMD` as root first (repeatable).")
	set.StringArrayVar(&s.outputFiles, "output-file", nil,
		"Bring back the files below /work that match `GLOB` (repeatable).")
	set.StringVar(&s.outputDir, "output-dir", "", "Where to put them: a `DIR`. [default: .]")
	set.BoolVar(&s.asJSON, "json", false, "Print the result as JSON, at the end.")
}

// split parts the arguments of a command where everything after -- belongs to the script.
func split(command *cobra.Command, arguments []string, most int) (own, script []string, err error) {
	own = arguments
	if dash := command.ArgsLenAtDash(); dash >= 0 {
		own, script = arguments[:dash], arguments[dash:]
	}
	if len(own) > most {
		return nil, nil, wrong(command, "unexpected argument '%s': the script's own arguments go after --", own[most])
	}
	return own, script, nil
}

// options are the request's; a usageError where flags do not fit, or a flag's file or variable is not there.
func (s *scriptFlags) options(command *cobra.Command, script []string, stdinIsCode bool) ([]pyexec.Option, error) {
	if s.outputDir != "" && len(s.outputFiles) == 0 {
		return nil, wrong(command, "--output-dir: name what to bring back with --output-file")
	}
	if s.stdin == "-" && stdinIsCode {
		return nil, wrong(command, "--stdin -: the code itself comes from there already; name a file")
	}
	options := []pyexec.Option{
		pyexec.WithEntrypoint(s.entrypoint),
		pyexec.WithArgs(script...),
		pyexec.WithPreCommands(s.preCommands...),
		pyexec.WithOutputFiles(s.outputFiles...),
	}
	if s.stdin != "" {
		text, err := readText(command, s.stdin, "--stdin")
		if err != nil {
			return nil, err
		}
		options = append(options, pyexec.WithStdin(text))
	}
	variables, err := s.environment(command)
	if err != nil {
		return nil, err
	}
	options = append(options, variables...)
	if s.requirements != "" {
		text, err := readText(command, s.requirements, "--requirements")
		if err != nil {
			return nil, err
		}
		options = append(options, pyexec.WithRequirements(text))
	}
	return options, nil
}

func (s *scriptFlags) environment(command *cobra.Command) ([]pyexec.Option, error) {
	var names []string
	values := map[string]string{}
	for _, word := range s.env {
		name, value, given := strings.Cut(word, "=")
		if name == "" {
			return nil, wrong(command, "--env %s: there is no name before the =", word)
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				return nil, wrong(command, "--env %s: it is not set here; write %s=VALUE", name, name)
			}
		}
		if _, again := values[name]; !again {
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

// request is what to run and how, as run and submit take it.
func (s *scriptFlags) request(
	command *cobra.Command, arguments []string, flags *flags, console *console,
) (pyexec.Source, []pyexec.Option, error) {
	own, script, err := split(command, arguments, 1)
	if err != nil {
		return pyexec.Source{}, nil, err
	}
	if s.requirements != "" && s.noRequirements {
		return pyexec.Source{}, nil, wrong(command, "--requirements and --no-requirements exclude each other")
	}
	chosen, err := choose(command, own, s.files)
	if err != nil {
		return pyexec.Source{}, nil, err
	}
	if chosen.unused != "" {
		console.note("--file was given: %s is not used", chosen.unused)
	}
	options, err := s.options(command, script, chosen.isStdin)
	if err != nil {
		return pyexec.Source{}, nil, err
	}
	if chosen.requirements != "" && s.requirements == "" && !s.noRequirements {
		console.note("installing the input's requirements.txt (--no-requirements leaves it alone)")
		options = append(options, pyexec.WithRequirements(chosen.requirements))
	}
	return withProgress(chosen.source, console), append(options, flags.options()...), nil
}
