package main

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	pyexec "github.com/python-executor/golang-client"
)

const (
	requirementsName = "requirements.txt"
	renameTar        = "save it to a file whose name ends in .tar, and run that file"
	giveInput        = "give a file, a directory or a .tar, or pipe a script to standard input"
)

// input is the chosen source, and the text of the requirements.txt at its root, if it lists any packages.
type input struct {
	source       pyexec.Source
	requirements string
	isStdin      bool
	unused       string
}

// chooseInput chooses the input: --file, else a .tar, a directory or a file, else standard input. It fails with a
// usageError if there is none or it is unusable.
func chooseInput(command *cobra.Command, arguments, files []string) (*input, error) {
	if len(files) > 0 {
		return chooseFiles(command, strings.Join(arguments, ""), files)
	}
	if len(arguments) == 0 || arguments[0] == "-" {
		if term.IsTerminal(int(os.Stdin.Fd())) {
			return nil, usageErrorf(command, "nothing to run: "+giveInput)
		}
		source, err := readWhole(os.Stdin)
		switch {
		case errors.Is(err, errEmpty):
			return nil, usageErrorf(command, "nothing to run: standard input is empty; "+giveInput)
		case errors.Is(err, errTar):
			return nil, usageErrorf(command, "standard input is a tar archive: "+renameTar)
		}
		return &input{source: source, isStdin: true}, err
	}
	argument := arguments[0] // splitArguments allows no second one
	mode, err := modeOf(command, argument, argument, explainMissing(command, argument))
	switch {
	case err != nil:
		return nil, err
	case mode.IsDir():
		text, err := readRequirements(command, filepath.Join(argument, requirementsName))
		return &input{source: pyexec.Path(argument), requirements: text}, err
	case !mode.IsRegular(): // a named pipe, or the shell's <(…)
		return chooseStream(command, argument)
	}
	return chooseFile(command, argument)
}

// explainMissing returns the error message for an input that does not exist. It may be a mistyped command, or source
// text, unless the command is session new.
func explainMissing(command *cobra.Command, name string) string {
	if command.Name() == "new" {
		return "no such file or directory"
	}
	const text = "no such file, directory or command"
	if strings.ContainsAny(name, `(='" `) {
		return text + "; eval runs source text"
	}
	near := closest(name, commandNames(command.Root()))
	if len(near) == 0 || strings.ContainsAny(name, "./") {
		return text
	}
	return text + "; did you mean '" + near[0] + "'?"
}

func chooseFile(command *cobra.Command, name string) (*input, error) {
	if pyexec.IsTarName(name) {
		text, err := readRequirementsInTar(command, name)
		return &input{source: pyexec.Path(name), requirements: text}, err
	}
	isTar, err := isTarFile(name)
	if isTar {
		return nil, usageErrorf(command, "%s is a tar archive: "+renameTar, name)
	}
	return &input{source: pyexec.Path(name)}, err
}

func chooseStream(command *cobra.Command, name string) (*input, error) {
	stream, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	source, err := readWhole(stream)
	switch {
	case errors.Is(err, errEmpty):
		return nil, usageErrorf(command, "nothing to run: %s is empty; "+giveInput, name)
	case errors.Is(err, errTar):
		return nil, usageErrorf(command, "%s is a tar archive: "+renameTar, name)
	}
	return &input{source: source}, err
}

func chooseFiles(command *cobra.Command, argument string, files []string) (*input, error) {
	var members []pyexec.Member
	known := map[string]string{}
	for _, name := range files {
		mode, err := modeOf(command, name, "--file "+name, "no such file")
		if err != nil {
			return nil, err
		}
		if !mode.IsRegular() {
			return nil, usageErrorf(command, "--file %s: not a regular file; pass a directory as INPUT", name)
		}
		archivePath := relative(name)
		if _, duplicate := known[archivePath]; duplicate {
			return nil, usageErrorf(command, "--file %s: %s was already given", name, archivePath)
		}
		known[archivePath] = name
		member, err := pyexec.FileMember(archivePath, name)
		if err != nil {
			return nil, err
		}
		members = append(members, member)
	}
	chosen := &input{source: pyexec.Members(members...), unused: argument}
	var err error
	if file, found := known[requirementsName]; found {
		chosen.requirements, err = readRequirements(command, file)
	}
	return chosen, err
}

func modeOf(command *cobra.Command, name, label, missing string) (fs.FileMode, error) {
	status, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, usageErrorf(command, "%s: %s", label, missing)
	}
	if err != nil {
		return 0, usageErrorf(command, "%s: %s", label, strerror(err))
	}
	return status.Mode(), nil
}

// relative returns the path inside the archive: relative to the working directory, or the bare name if outside it.
func relative(name string) string {
	here, err := os.Getwd()
	if err != nil {
		return filepath.Base(name)
	}
	full := name
	if !filepath.IsAbs(full) {
		full = filepath.Join(here, full)
	}
	path, err := filepath.Rel(here, full)
	if err != nil || strings.HasPrefix(path, ".."+string(filepath.Separator)) {
		return filepath.Base(full)
	}
	return filepath.ToSlash(path)
}

// readText reads the text file that a flag names; - means standard input.
func readText(command *cobra.Command, name, flag string) (string, error) {
	content, err := readBytes(command, name, flag)
	if err != nil {
		return "", err
	}
	return decodeUTF8(command, content, flag+" "+name)
}

func readRequirementsFlag(command *cobra.Command, name, flag string) (string, error) {
	content, err := readBytes(command, name, flag)
	if err != nil {
		return "", err
	}
	return decodeRequirements(command, content, flag+" "+name)
}

func readBytes(command *cobra.Command, name, flag string) ([]byte, error) {
	var content []byte
	var err error
	if name == "-" {
		content, err = io.ReadAll(os.Stdin)
	} else {
		content, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, usageErrorf(command, "%s %s: %s", flag, name, strerror(err))
	}
	return content, nil
}

func decodeUTF8(command *cobra.Command, content []byte, label string) (string, error) {
	for position := 0; position < len(content); {
		letter, size := utf8.DecodeRune(content[position:])
		if letter == utf8.RuneError && size == 1 {
			return "", usageErrorf(command, "%s: not UTF-8 text (invalid byte at offset %d)", label, position)
		}
		position += size
	}
	return string(content), nil
}

func readRequirements(command *cobra.Command, file string) (string, error) {
	if status, err := os.Stat(file); err != nil || !status.Mode().IsRegular() {
		return "", nil // there is no such file
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return decodeFoundRequirements(command, content)
}

func readRequirementsInTar(command *cobra.Command, file string) (string, error) {
	opened, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer opened.Close()
	archive := tar.NewReader(opened)
	var content []byte
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return decodeFoundRequirements(command, content)
		}
		if err == nil && header.Typeflag == tar.TypeReg && path.Clean(header.Name) == requirementsName {
			content, err = io.ReadAll(archive) // a later member replaces an earlier one
		}
		if err != nil {
			return "", nil // the server reports it
		}
	}
}
