package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"
)

const historyLines = 1000

// errInterrupted means that Ctrl-C was pressed while a line was typed.
var errInterrupted = errors.New("interrupted")

// lineReader reads lines from standard input; on a terminal, with an editor and a history.
type lineReader struct {
	isTerminal bool
	initial    *term.State
	plain      *bufio.Reader
	hasBegun   bool // the first line has been read from plain
	editor     *term.Terminal
	keys       *keys
	history    *history
}

func newLineReader() *lineReader {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return &lineReader{plain: bufio.NewReader(os.Stdin)}
	}
	reader := &lineReader{isTerminal: true, keys: &keys{}, history: loadHistory()}
	reader.initial, _ = term.GetState(int(os.Stdin.Fd()))
	reader.resetEditor()
	return reader
}

func (r *lineReader) resetEditor() {
	r.editor = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{r.keys, os.Stdout}, "")
	r.editor.History = r.history
}

// read reads a line. It fails with io.EOF at the end of the input, and with errInterrupted for Ctrl-C.
func (r *lineReader) read(prompt string) (string, error) {
	if !r.isTerminal {
		line, err := r.plain.ReadString('\n')
		if err == io.EOF && line != "" {
			err = nil
		}
		if !r.hasBegun {
			r.hasBegun = true
			line = strings.TrimPrefix(line, "\ufeff") // a byte order mark is no part of the first statement
		}
		if line, ended := strings.CutSuffix(line, "\n"); ended {
			return strings.TrimSuffix(line, "\r"), err // as Python reads text
		}
		return line, err
	}
	// Only while a line is typed: a cell prints to an ordinary terminal, which turns Ctrl-C into a signal.
	state, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return "", err
	}
	defer term.Restore(int(os.Stdin.Fd()), state)
	if width, height, err := term.GetSize(int(os.Stdin.Fd())); err == nil && width > 0 {
		r.editor.SetSize(width, height) //nolint:errcheck // the next key repaints the line
	}
	r.editor.SetPrompt(prompt)
	r.keys.interrupted = false
	line, err := r.editor.ReadLine()
	if err == io.EOF {
		r.resetEditor() // it keeps the line and the key
		if r.keys.interrupted {
			return "", errInterrupted
		}
	}
	return line, err
}

// close saves the history, and restores the terminal, which a signal may have left in raw mode.
func (r *lineReader) close() {
	if r.isTerminal {
		if r.initial != nil {
			term.Restore(int(os.Stdin.Fd()), r.initial) //nolint:errcheck // a closed terminal needs no restoring
		}
		r.history.save()
	}
}

// keys is standard input. It records whether the last keys contained Ctrl-C, which the editor reports as the end.
type keys struct{ interrupted bool }

func (k *keys) Read(buffer []byte) (int, error) {
	count, err := os.Stdin.Read(buffer)
	k.interrupted = bytes.IndexByte(buffer[:count], 3) >= 0
	return count, err
}

// history is the history of the editor; the newest line is the last one.
type history struct {
	file  string
	lines []string
}

func loadHistory() *history {
	file := os.Getenv("PYEXEC_HISTORY")
	if home, err := os.UserHomeDir(); file == "" && err == nil {
		file = filepath.Join(home, ".python_executor_history")
	}
	loaded := &history{file: file}
	if content, err := os.ReadFile(file); err == nil {
		for line := range strings.Lines(string(content)) {
			loaded.Add(strings.TrimSuffix(line, "\n"))
		}
	}
	return loaded
}

func (h *history) Add(entry string) {
	if entry != "" {
		h.lines = append(h.lines, entry)
	}
}

func (h *history) Len() int { return len(h.lines) }

func (h *history) At(index int) string { return h.lines[len(h.lines)-1-index] }

// save writes the history. A file that cannot be written is no reason to fail at the end.
func (h *history) save() {
	lines := h.lines[max(0, len(h.lines)-historyLines):]
	if h.file != "" && len(lines) > 0 {
		os.WriteFile(h.file, []byte(strings.Join(lines, "\n")+"\n"), 0o600) //nolint:errcheck // see above
	}
}
