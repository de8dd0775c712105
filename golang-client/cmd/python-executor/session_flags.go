package main

import (
	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

// sessionFlags are the flags of the commands that open a session.
type sessionFlags struct {
	requirements          string
	env, preCommands      []string
	idleTimeout, lifetime positiveFloat
}

// sessionFlagNames are the names of these flags.
var sessionFlagNames = []string{"requirements", "env", "pre-command", "idle-timeout", "lifetime"}

func (s *sessionFlags) addTo(command *cobra.Command) {
	set := command.Flags()
	set.SortFlags = false
	set.StringVar(&s.requirements, "requirements", "", "Install the packages listed in `FILE`.")
	set.StringArrayVarP(&s.env, "env", "e", nil,
		"Set an environment variable as `K[=V]`; without =V, use the local value (repeatable).")
	set.StringArrayVar(&s.preCommands, "pre-command", nil,
		"Run the shell command `CMD` as root during setup (repeatable).")
	set.Var(&s.idleTimeout, "idle-timeout", "Close the session after `N` seconds without code.")
	set.Var(&s.lifetime, "lifetime", "Close the session after `N` seconds.")
}

// options converts the flags to the options of a session. It fails with a usageError for flags that are invalid.
func (s *sessionFlags) options(command *cobra.Command, flags *flags, stdinIsCode bool) ([]pyexec.Option, error) {
	if command.Flags().Changed("requirements") && s.requirements == "" {
		return nil, usageErrorf(command, "--requirements: must not be empty")
	}
	if flags.detached {
		return nil, usageErrorf(command, "--async: a session runs no script; use run or submit")
	}
	if err := checkRequirementsSource(command, s.requirements, stdinIsCode); err != nil {
		return nil, err
	}
	options := append(flags.options(), pyexec.WithPreCommands(s.preCommands...))
	if s.idleTimeout > 0 {
		options = append(options, pyexec.WithIdleTimeout(s.idleTimeout.duration()))
	}
	if s.lifetime > 0 {
		options = append(options, pyexec.WithLifetime(s.lifetime.duration()))
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
