package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	pyexec "github.com/python-executor/golang-client"
)

func (a *app) cluster() *cobra.Command {
	command := &cobra.Command{
		Use:   "cluster [flags]",
		Short: "Show all replicas and the queue of each tenant.",
		Args:  arguments(0),
	}
	a.shows(command, "Print the state as one line of JSON.",
		func(ctx context.Context, client *pyexec.Client, _ []string) (json.RawMessage, []string, error) {
			state, err := client.Cluster(ctx)
			if err != nil {
				return nil, nil, err
			}
			return state.Raw, a.clusterLines(state), nil
		})
	return command
}

func (a *app) timeline() *cobra.Command {
	const short = "Show the events and the phases of an execution."
	command := &cobra.Command{
		Use:   "timeline [flags] ID",
		Short: short,
		Long:  short + "\n\nEach event names its replica. A phase in progress has its duration so far.",
		Args:  arguments(1, "ID"),
	}
	a.shows(command, "Print the timeline as one line of JSON.",
		func(ctx context.Context, client *pyexec.Client, arguments []string) (json.RawMessage, []string, error) {
			found, err := client.Timeline(ctx, arguments[0])
			if err != nil {
				return nil, nil, err
			}
			return found.Raw, a.timelineLines(found), nil
		})
	return command
}

// shows lets a command print the lines that read returns, or its document with --json.
func (a *app) shows(command *cobra.Command, jsonHelp string,
	read func(context.Context, *pyexec.Client, []string) (json.RawMessage, []string, error)) {
	var asJSON bool
	command.Flags().BoolVar(&asJSON, "json", false, jsonHelp)
	command.RunE = func(command *cobra.Command, arguments []string) error {
		client, err := a.flags.client(command)
		if err != nil {
			return err
		}
		document, lines, err := read(command.Context(), client, arguments)
		if err != nil {
			return err
		}
		if asJSON {
			lines = []string{string(formatJSON(document))}
		}
		return newConsole(&a.flags).write("stdout", []byte(strings.Join(lines, "\n")+"\n"))
	}
}

func (a *app) clusterLines(state *pyexec.Cluster) []string {
	var replicas, queue [][]string
	var warnings []string
	for _, replica := range state.Replicas {
		replicas = append(replicas, replicaRow(replica))
		for _, warning := range replica.Warnings {
			warnings = append(warnings, printable(fmt.Sprintf("warning: %s: %s", replica.Name, warning)))
		}
	}
	for _, each := range state.Queue {
		queue = append(queue, []string{each.Tenant, fmt.Sprintf("%7d", each.Waiting), fmt.Sprintf("%7d", each.Running)})
	}
	lines := a.table(replicas, "REPLICA", "STATE", "LEADER", "SLOTS", "MEMORY MB", "IDLE", "STARTING", "REUSED",
		"SESSIONS", "UPTIME", "VERSION", "ADDRESS")
	lines = append(append(lines, warnings...), "")
	return append(lines, a.table(queue, "TENANT", "WAITING", "RUNNING")...)
}

func replicaRow(replica pyexec.Replica) []string {
	var leader, memory, reuse, sessions, uptime string
	state := "not ready"
	switch {
	case replica.Draining:
		state = "draining"
	case replica.Ready:
		state = "ready"
	}
	if replica.Leader {
		leader = "leader"
	}
	if replica.MemoryMB != nil {
		memory = fmt.Sprintf("%d/%d", replica.MemoryMB.Used, replica.MemoryMB.Total)
	}
	if replica.Reuse != nil {
		reuse = fmt.Sprintf("%d/%d", replica.Reuse.Served, replica.Reuse.Served+replica.Reuse.Discarded)
	}
	if replica.Sessions != nil {
		sessions = fmt.Sprint(replica.Sessions.Open)
	}
	if replica.UptimeSeconds != nil {
		uptime = rough(int64(*replica.UptimeSeconds))
	}
	idle, starting := 0, 0
	for _, each := range replica.Pool {
		idle, starting = idle+each.Idle, starting+each.Starting
	}
	slots := fmt.Sprintf("%d/%d", replica.Slots.Used, replica.Slots.Total)
	return []string{replica.Name, state, leader, slots, memory, fmt.Sprint(idle), fmt.Sprint(starting), reuse, sessions,
		uptime, replica.Version, replica.Address}
}

func (a *app) timelineLines(found *pyexec.Timeline) []string {
	var events, phases [][]string
	for _, event := range found.Events {
		events = append(events, eventRow(event, found.Events[0].At))
	}
	for _, phase := range found.Phases {
		phases = append(phases, []string{phase.Name, fmt.Sprintf("%10.3f", phase.Seconds)})
	}
	lines := append(a.table(events, "TIME", "   SECONDS", "EVENT", "REPLICA", "DETAILS"), "")
	return append(lines, a.table(phases, "PHASE", "   SECONDS")...)
}

func eventRow(event pyexec.TimelineEvent, first time.Time) []string {
	var details []string
	if event.Image != "" {
		details = append(details, "image "+event.Image)
	}
	if event.Reason != "" {
		details = append(details, event.Reason)
	}
	if event.ExitCode != nil {
		details = append(details, fmt.Sprintf("exit code %d", *event.ExitCode))
	}
	if event.ErrorType != "" {
		details = append(details, event.ErrorType)
	}
	elapsed := float64(event.At.UnixMilli()-first.UnixMilli()) / 1000
	return []string{event.At.UTC().Format("2006-01-02T15:04:05.000Z"), fmt.Sprintf("%10.3f", elapsed), event.Type,
		event.Replica, strings.Join(details, ", ")}
}

// rough returns a duration in its largest unit.
func rough(seconds int64) string {
	switch {
	case seconds >= 86400:
		return fmt.Sprintf("%d d", seconds/86400)
	case seconds >= 3600:
		return fmt.Sprintf("%d h", seconds/3600)
	case seconds >= 60:
		return fmt.Sprintf("%d min", seconds/60)
	}
	return fmt.Sprintf("%d s", seconds)
}

// table returns the lines of a table, whose columns are as wide as their cells. With --quiet, it has no headings.
func (a *app) table(rows [][]string, headings ...string) []string {
	if !a.flags.quiet {
		rows = append([][]string{headings}, rows...)
	}
	widths := make([]int, len(headings))
	for _, row := range rows {
		for column, cell := range row {
			row[column] = printable(cell)
			widths[column] = max(widths[column], utf8.RuneCountInString(row[column]))
		}
	}
	var lines []string
	for _, row := range rows {
		var line strings.Builder
		for column, cell := range row {
			fmt.Fprintf(&line, "%-*s  ", widths[column], cell)
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}
