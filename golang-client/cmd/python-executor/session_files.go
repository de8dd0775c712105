package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) sessionFiles() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use:   "files [flags] ID [GLOB]",
		Short: "List the files of a session, or those that match GLOB.",
		Long: "List the files of a session, or those that match GLOB.\n\n" +
			"Their paths are relative to /work, the working directory of the session.",
		Args: arguments(1, "ID", "GLOB"),
		RunE: func(command *cobra.Command, given []string) error {
			if len(given) > 1 && given[1] == "" {
				return usageErrorf(command, "GLOB: must not be empty")
			}
			found, err := a.findSession(command, given[0])
			if err != nil {
				return err
			}
			listed, err := found.List(command.Context(), strings.Join(given[1:], ""))
			if err != nil {
				return err
			}
			var text strings.Builder
			var rows [][]string
			for _, file := range listed.Files {
				if asJSON {
					document, err := json.Marshal(file)
					if err != nil {
						return err
					}
					fmt.Fprintf(&text, "%s\n", formatJSON(document))
				}
				rows = append(rows, []string{fmt.Sprintf("%12d", file.Size), file.Path})
			}
			if !asJSON {
				for _, line := range a.table(rows, fmt.Sprintf("%12s", "SIZE"), "PATH") {
					fmt.Fprintln(&text, line)
				}
			}
			console := newConsole(&a.flags)
			if err := console.write("stdout", []byte(text.String())); err != nil {
				return err
			}
			if listed.Truncated {
				console.info("only the first %d files are listed; give a GLOB", len(listed.Files))
			}
			return nil
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "Print one JSON object per line.")
	return command
}

func (a *app) sessionUpload() *cobra.Command {
	return &cobra.Command{
		Use:   "upload [flags] ID FILE [PATH]",
		Short: "Copy FILE into a session, to PATH below /work.",
		Long: "Copy FILE into a session, to PATH below /work.\n\n" +
			"Without PATH, the file keeps its name. If PATH ends with /, it is a directory. If FILE is -,\n" +
			"standard input is copied.",
		Args: arguments(2, "ID", "FILE", "PATH"),
		RunE: func(command *cobra.Command, given []string) error {
			target := strings.Join(given[2:], "")
			isNamed := target != "" && !strings.HasSuffix(target, "/")
			switch {
			case given[1] == "-" && target == "":
				return usageErrorf(command, "Missing argument 'PATH': standard input has no name.")
			case given[1] == "-" && !isNamed:
				return usageErrorf(command, "%s: standard input has no name; add a file name", target)
			case !isNamed:
				target += given[1][strings.LastIndex(given[1], "/")+1:]
			}
			found, err := a.findSession(command, given[0])
			if err != nil {
				return err
			}
			source, err := openSource(command, given[1])
			if err != nil {
				return err
			}
			defer source.Close()
			console := newConsole(&a.flags)
			defer console.statusLine.close()
			info, err := source.Stat()
			if err != nil {
				return err
			}
			content := &countingReader{source, progressOf(info.Size(), console), 0}
			if err := found.Upload(command.Context(), target, content); err != nil {
				return err
			}
			console.debug("wrote %s", target)
			return nil
		},
	}
}

func (a *app) sessionDownload() *cobra.Command {
	return &cobra.Command{
		Use:   "download [flags] ID PATH [FILE]",
		Short: "Copy the file at PATH of a session to FILE.",
		Long: "Copy the file at PATH of a session to FILE.\n\n" +
			"Without FILE, it keeps its name. If FILE is a directory, it is saved there. If FILE is -, it is\n" +
			"printed on standard output.",
		Args: arguments(2, "ID", "PATH", "FILE"),
		RunE: func(command *cobra.Command, given []string) error {
			target := strings.Join(given[2:], "")
			if info, err := os.Stat(target); target == "" || target != "-" && err == nil && info.IsDir() {
				name := strings.TrimRight(given[1], "/")
				target = filepath.Join(target, name[strings.LastIndex(name, "/")+1:])
			}
			found, err := a.findSession(command, given[0])
			if err != nil {
				return err
			}
			content, err := found.Download(command.Context(), given[1])
			if err != nil {
				return err
			}
			console := newConsole(&a.flags)
			if target == "-" {
				return printAll(content, "stdout", console)
			}
			defer content.Close()
			file, err := os.Create(target)
			if err != nil {
				return err
			}
			_, err = io.Copy(file, content)
			if closeErr := file.Close(); err == nil {
				err = closeErr
			}
			if err == nil {
				console.debug("wrote %s", target)
			}
			return err
		},
	}
}

func (a *app) sessionDelete() *cobra.Command {
	return &cobra.Command{
		Use:   "delete [flags] ID PATH",
		Short: "Delete the file at PATH of a session.",
		Args:  arguments(2, "ID", "PATH"),
		RunE: func(command *cobra.Command, given []string) error {
			found, err := a.findSession(command, given[0])
			if err != nil {
				return err
			}
			if err := found.Delete(command.Context(), given[1]); err != nil {
				return err
			}
			newConsole(&a.flags).debug("deleted %s", given[1])
			return nil
		},
	}
}

// openSource opens a file to upload; - is standard input.
func openSource(command *cobra.Command, name string) (*os.File, error) {
	if name == "-" {
		return os.Stdin, nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, usageErrorf(command, "%s: %s", name, strerror(err))
	}
	if info, err := file.Stat(); err == nil && info.IsDir() {
		file.Close()
		return nil, usageErrorf(command, "%s: Is a directory", name)
	}
	return file, nil
}

// countingReader shows how many bytes of a file have been read.
type countingReader struct {
	file io.Reader
	show func(sent int64)
	sent int64
}

func (r *countingReader) Read(buffer []byte) (int, error) {
	count, err := r.file.Read(buffer)
	r.sent += int64(count)
	r.show(r.sent)
	return count, err
}
