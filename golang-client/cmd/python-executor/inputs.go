package main

import (
	"archive/tar"
	"bytes"
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
	runTar           = "put it into a file whose name ends in .tar, and run that"
	nothing          = "there is nothing to run: name a file, a directory or a .tar, or pipe a script in"
)

// input is the chosen source, and the text of the requirements.txt at its root, if that lists anything.
type input struct {
	source       pyexec.Source
	requirements string
	isStdin      bool
	unused       string
}

// choose gives the input that these arguments mean, whichever is given first: --file, a .tar, a directory, a
// file, or standard input; a usageError, which says why, if there is none.
func choose(command *cobra.Command, arguments, files []string) (*input, error) {
	if len(files) > 0 {
		return chooseFiles(command, strings.Join(arguments, ""), files)
	}
	if len(arguments) == 0 || arguments[0] == "-" {
		if term.IsTerminal(int(os.Stdin.Fd())) {
			return nil, wrong(command, nothing)
		}
		source, err := readWhole(os.Stdin)
		switch {
		case errors.Is(err, errEmpty):
			return nil, wrong(command, "standard input is empty: "+nothing)
		case errors.Is(err, errTar):
			return nil, wrong(command, "standard input is a tar: "+runTar)
		}
		return &input{source: source, isStdin: true}, err
	}
	argument := arguments[0] // split has seen to it that there is one at most
	mode, err := modeOf(command, argument, argument, "no such file, directory or command")
	switch {
	case err != nil:
		return nil, err
	case mode.IsDir():
		text, err := listedIn(command, filepath.Join(argument, requirementsName))
		return &input{source: pyexec.Path(argument), requirements: text}, err
	case !mode.IsRegular(): // a named pipe, or the shell's <(…)
		return chooseStream(command, argument)
	}
	return chooseFile(command, argument)
}

func chooseFile(command *cobra.Command, name string) (*input, error) {
	if pyexec.IsTarName(name) {
		text, err := listedInTar(command, name)
		return &input{source: pyexec.Path(name), requirements: text}, err
	}
	tarred, err := isTarFile(name)
	if tarred {
		return nil, wrong(command, "%s is a tar: "+runTar, name)
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
		return nil, wrong(command, "%s: it is empty: "+nothing, name)
	case errors.Is(err, errTar):
		return nil, wrong(command, "%s is a tar: "+runTar, name)
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
			return nil, wrong(command, "--file %s: it is not a file; give a directory as INPUT", name)
		}
		inside := relative(name)
		if _, again := known[inside]; again {
			return nil, wrong(command, "--file %s: there is another %s already", name, inside)
		}
		known[inside] = name
		member, err := pyexec.FileMember(inside, name)
		if err != nil {
			return nil, err
		}
		members = append(members, member)
	}
	chosen := &input{source: pyexec.Members(members...), unused: argument}
	var err error
	if listed, found := known[requirementsName]; found {
		chosen.requirements, err = listedIn(command, listed)
	}
	return chosen, err
}

func modeOf(command *cobra.Command, name, spoken, missing string) (fs.FileMode, error) {
	status, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, wrong(command, "%s: %s", spoken, missing)
	}
	if err != nil {
		return 0, wrong(command, "%s: %s", spoken, strerror(err))
	}
	return status.Mode(), nil
}

// relative is the path as it will be in the archive: relative to here, or the bare name of what lies elsewhere.
func relative(name string) string {
	here, err := os.Getwd()
	if err != nil {
		return filepath.Base(name)
	}
	full := name
	if !filepath.IsAbs(full) {
		full = filepath.Join(here, full)
	}
	inside, err := filepath.Rel(here, full)
	if err != nil || strings.HasPrefix(inside, ".."+string(filepath.Separator)) {
		return filepath.Base(full)
	}
	return filepath.ToSlash(inside)
}

// readText is the text of the file that a flag names, - being standard input.
func readText(command *cobra.Command, name, flag string) (string, error) {
	var content []byte
	var err error
	if name == "-" {
		content, err = io.ReadAll(os.Stdin)
	} else {
		content, err = os.ReadFile(name)
	}
	if err != nil {
		return "", wrong(command, "%s %s: %s", flag, name, strerror(err))
	}
	return asText(command, content, flag+" "+name)
}

func asText(command *cobra.Command, content []byte, spoken string) (string, error) {
	for position := 0; position < len(content); {
		letter, size := utf8.DecodeRune(content[position:])
		if letter == utf8.RuneError && size == 1 {
			return "", wrong(command, "%s: it must be UTF-8 text, and is not at byte %d", spoken, position)
		}
		position += size
	}
	return string(content), nil
}

func listedIn(command *cobra.Command, file string) (string, error) {
	if status, err := os.Stat(file); err != nil || !status.Mode().IsRegular() {
		return "", nil // none is there
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return listing(command, content)
}

func listedInTar(command *cobra.Command, file string) (string, error) {
	opened, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer opened.Close()
	archive := tar.NewReader(opened)
	for {
		header, err := archive.Next()
		if err != nil {
			return "", nil // its end, or the server says better what is wrong with it
		}
		if header.Typeflag == tar.TypeReg && path.Clean(header.Name) == requirementsName {
			content, err := io.ReadAll(archive)
			if err != nil {
				return "", nil
			}
			return listing(command, content)
		}
	}
}

// listing is the text of a requirements.txt; empty if nothing stands in it.
func listing(command *cobra.Command, content []byte) (string, error) {
	text, err := asText(command, bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")), requirementsName)
	if strings.TrimSpace(text) == "" {
		return "", err
	}
	return text, err
}
