package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

func (a *app) session() *cobra.Command {
	command := &cobra.Command{
		Use:   "session COMMAND",
		Short: "Open, use and close interpreter sessions.",
		RunE: func(command *cobra.Command, given []string) error {
			if len(given) > 0 {
				return noSuchCommand(command, given[0])
			}
			return usageErrorf(command, "Missing command.")
		},
	}
	command.AddCommand(hideFlags(a.sessionNew(), "async"))
	for _, each := range []*cobra.Command{a.sessionList(), a.sessionShow(), a.sessionInterrupt(), a.sessionRestart(),
		a.sessionFiles(), a.sessionUpload(), a.sessionDownload(), a.sessionDelete(), a.sessionClose()} {
		command.AddCommand(a.withoutRunFlags(each))
	}
	return command
}

func (a *app) sessionNew() *cobra.Command {
	var settings sessionFlags
	var asJSON bool
	command := &cobra.Command{
		Use:   "new [flags] [INPUT]",
		Short: "Open a session and print its ID.",
		Long: "Open a session and print its ID.\n\n" +
			"The files of INPUT, a file, a directory or a .tar archive, are put into its working directory.",
		RunE: func(command *cobra.Command, arguments []string) error {
			if len(arguments) > 1 {
				return usageErrorf(command, "Got unexpected extra argument (%s)", arguments[1])
			}
			options, err := settings.options(command, &a.flags, slices.Equal(arguments, []string{"-"}))
			if err != nil {
				return err
			}
			console := newConsole(&a.flags)
			defer console.statusLine.close()
			if len(arguments) == 1 {
				chosen, err := chooseInput(command, arguments, nil)
				if err != nil {
					return err
				}
				options = append(options, pyexec.WithSource(withProgress(chosen.source, console)))
			}
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			opening := &opening{console: console}
			work := func(ctx context.Context) (int, error) {
				opened, err := opening.open(ctx, client, options)
				if err != nil || opened == nil {
					return exitNotRun, err
				}
				line := []byte(printable(opened.ID))
				if asJSON {
					line = formatJSON(opened.Info().Raw)
				}
				if err := console.write("stdout", append(line, '\n')); err != nil {
					return exitNotRun, errors.Join(err, closeSession(opened))
				}
				opening.use(opened)
				return 0, nil
			}
			onInterrupt := func() bool {
				opening.onInterrupt()
				return true // a session that is open is printed
			}
			a.exitCode, err = interruptible(a.stopExitOnInterrupt, work, onInterrupt, handlesNone)
			if err == nil {
				err = opening.close()
			}
			return err
		},
	}
	settings.addTo(command)
	command.Flags().BoolVar(&asJSON, "json", false, "Print the session as one line of JSON.")
	return command
}

func (a *app) sessionList() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "list [flags]",
		Short: "List sessions.",
		Args:  arguments(0),
		RunE: func(command *cobra.Command, _ []string) error {
			client, err := a.flags.client(command)
			if err != nil {
				return err
			}
			sessions, err := client.Sessions(command.Context())
			if err != nil {
				return err
			}
			var text strings.Builder
			var rows [][]string
			for _, info := range sessions {
				if asJSON {
					fmt.Fprintf(&text, "%s\n", formatJSON(info.Raw))
				}
				rows = append(rows, rowOfSession(info))
			}
			if !asJSON {
				for _, line := range a.table(rows, "ID", "STATUS", "CREATED", "WAITING", "IMAGE") {
					fmt.Fprintln(&text, line)
				}
			}
			return newConsole(&a.flags).write("stdout", []byte(text.String()))
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "Print one JSON object per line.")
	return command
}

func (a *app) sessionShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show [flags] ID",
		Short: "Print a session as one line of JSON.",
		Args:  arguments(1, "ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			found, err := a.findSession(command, arguments[0])
			if err != nil {
				return err
			}
			return newConsole(&a.flags).write("stdout", append(formatJSON(found.Info().Raw), '\n'))
		},
	}
}

func (a *app) sessionInterrupt() *cobra.Command {
	return &cobra.Command{
		Use:   "interrupt [flags] ID",
		Short: "Interrupt the code that runs in a session; the variables stay.",
		Long: "Interrupt the code that runs in a session; the variables stay.\n\n" +
			"Prints interrupted, or idle if no code runs.",
		Args: arguments(1, "ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			found, err := a.findSession(command, arguments[0])
			if err != nil {
				return err
			}
			interrupted, err := found.Interrupt(command.Context())
			if err != nil {
				return err
			}
			answer := "idle\n"
			if interrupted {
				answer = "interrupted\n"
			}
			return newConsole(&a.flags).write("stdout", []byte(answer))
		},
	}
}

func (a *app) sessionRestart() *cobra.Command {
	return &cobra.Command{
		Use:   "restart [flags] ID",
		Short: "Start a new interpreter in a session: the files stay, the variables are lost.",
		Args:  arguments(1, "ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			found, err := a.findSession(command, arguments[0])
			if err != nil {
				return err
			}
			if _, err := found.Restart(command.Context()); err != nil {
				return err
			}
			return newConsole(&a.flags).write("stdout", []byte("restarted\n"))
		},
	}
}

func (a *app) sessionClose() *cobra.Command {
	return &cobra.Command{
		Use:   "close [flags] ID",
		Short: "Close a session: end its code, delete its files, and print its status.",
		Args:  arguments(1, "ID"),
		RunE: func(command *cobra.Command, arguments []string) error {
			found, err := a.findSession(command, arguments[0])
			if err != nil {
				return err
			}
			if err := found.Close(command.Context()); err != nil {
				return err
			}
			return newConsole(&a.flags).write("stdout", []byte("closed\n"))
		},
	}
}

// findSession returns an existing session. The client checks its ID.
func (a *app) findSession(command *cobra.Command, id string) (*pyexec.Session, error) {
	client, err := a.flags.client(command)
	if err != nil {
		return nil, err
	}
	found, err := client.GetSession(command.Context(), id)
	var invalid *pyexec.ArgumentError
	if errors.As(err, &invalid) {
		return nil, invalid
	}
	return found, err
}

func rowOfSession(info *pyexec.SessionInfo) []string {
	created := ""
	if !info.CreatedAt.IsZero() {
		created = info.CreatedAt.Format("2006-01-02T15:04:05Z")
	}
	return []string{info.ID, info.Status, created, fmt.Sprintf("%7d", info.Cells.Waiting), info.DockerImage}
}
