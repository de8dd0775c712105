package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

func (a *app) logs() *cobra.Command {
	var follow bool
	stream := choice{allowed: []string{"stdout", "stderr"}}
	command := &cobra.Command{
		Use:   "logs [flags] ID",
		Short: "Print the output of an execution.",
		Long: "Print the output of an execution.\n\n" +
			"Standard output and standard error are printed in the order in which they were written.",
		Args: arguments(1, "ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			var options []pyexec.LogsOption
			if follow {
				options = append(options, pyexec.FollowLogs())
			}
			if stream.value != "" {
				options = append(options, pyexec.OnlyStream(stream.value))
			}
			content, err := client.Logs(command.Context(), arguments[0], options...)
			if err != nil {
				return err
			}
			return printAll(content, "stdout", newConsole(&a.flags))
		},
	}
	command.Flags().BoolVar(&follow, "follow", false, "Keep printing until the execution ends.")
	stream.addTo(command, "stream", "Print only this stream.")
	return command
}

func (a *app) kill() *cobra.Command {
	return &cobra.Command{
		Use:   "kill [flags] ID",
		Short: "Kill an execution and print its status.",
		Long: "Kill an execution and print its status.\n\n" +
			"The status is killed, or the final status of an execution that had already ended.",
		Args: arguments(1, "ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			status, err := client.Kill(command.Context(), arguments[0])
			if err != nil {
				return err
			}
			return newConsole(&a.flags).write("stdout", []byte(status+"\n"))
		},
	}
}

func (a *app) list() *cobra.Command {
	status := choice{}
	for _, known := range pyexec.Statuses {
		status.allowed = append(status.allowed, string(known))
	}
	limit := positiveInt(20)
	var asJSON bool
	command := &cobra.Command{
		Use:   "list [flags]",
		Short: "List executions, newest first.",
		Args:  arguments(0),
		RunE: func(command *cobra.Command, _ []string) error {
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			console := newConsole(&a.flags)
			var heading []byte
			if !asJSON && !a.flags.quiet {
				heading = row("ID", "STATUS", "EXIT", "CREATED", "DURATION")
			}
			listing := pyexec.Listing{Status: pyexec.Status(status.value), Limit: int(limit)}
			for execution, err := range client.List(command.Context(), listing) {
				if err != nil {
					return err
				}
				line := rowOf(execution)
				if asJSON {
					line = append(formatJSON(execution.Raw), '\n')
				}
				if err := console.write("stdout", append(heading, line...)); err != nil {
					return err
				}
				heading = nil
			}
			return console.write("stdout", heading)
		},
	}
	status.addTo(command, "status", "Show only executions with this status.")
	command.Flags().Var(&limit, "limit", "Show at most N executions (default 20).")
	command.Flags().Lookup("limit").DefValue = "" // pflag would print the default once more
	command.Flags().BoolVar(&asJSON, "json", false, "Print one JSON object per line.")
	return command
}

func rowOf(execution *pyexec.Result) []byte {
	var exit, created, duration string
	if execution.ExitCode != nil {
		exit = strconv.Itoa(*execution.ExitCode)
	}
	if !execution.CreatedAt.IsZero() {
		created = execution.CreatedAt.Format("2006-01-02T15:04:05Z")
	}
	if execution.DurationMS != nil {
		duration = fmt.Sprintf("%.3f s", *execution.DurationMS/1000)
	}
	return row(printable(execution.ExecutionID), printable(string(execution.Status)), exit, created, duration)
}

func row(id, status, exit, created, duration string) []byte {
	return fmt.Appendf(nil, "%-36s  %-9s  %4s  %-20s  %10s\n", id, status, exit, created, duration)
}

// choice is a flag that accepts only certain values.
type choice struct {
	allowed []string
	value   string
}

func (c *choice) addTo(command *cobra.Command, name, usage string) {
	command.Flags().Var(c, name, usage)
	complete := cobra.FixedCompletions(c.allowed, cobra.ShellCompDirectiveNoFileComp)
	if err := command.RegisterFlagCompletionFunc(name, complete); err != nil {
		panic(err) // a flag of that name was added above
	}
}

func (c *choice) Set(text string) error {
	if !slices.Contains(c.allowed, text) {
		return fmt.Errorf("must be one of %s", strings.Join(c.allowed, ", "))
	}
	c.value = text
	return nil
}

func (c *choice) String() string { return c.value }

func (c *choice) Type() string { return "[" + strings.Join(c.allowed, "|") + "]" }
