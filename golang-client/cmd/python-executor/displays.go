package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"

	pyexec "github.com/python-executor/golang-client"
)

// kittyChunk is the number of characters of base64 in one command of the kitty protocol.
const kittyChunk = 4096

// outputDisplays writes each display to a file of the directory. Without one, it shows images if show is set and the
// terminal can. showText prints the plain text of displays that are neither shown nor saved in a better form, but not that
// of the last expression, whose value the caller has printed. first is the number of the first display.
func outputDisplays(
	result *pyexec.Result, directory string, console *console, show, showText bool, first int,
) error {
	if len(result.Displays) == 0 {
		return nil
	}
	ofValue := displayOfValue(result)
	if directory != "" {
		if err := saveDisplays(result.Displays, directory, console, first); err != nil || !showText {
			return err
		}
		for index, display := range result.Displays {
			if display.MIMEType() != "text/plain" || index == ofValue {
				continue
			}
			if _, err := printText(display, console); err != nil {
				return err
			}
		}
		return nil
	}
	protocol := ""
	if show {
		// repl, which prints texts, reads the keyboard itself, so it must not ask the terminal.
		protocol = findProtocol(result.Displays, !showText)
	}
	left := 0
	for index, display := range result.Displays {
		if content, err := display.Content("image/png"); err == nil && protocol != "" {
			if sequence := imageSequence(content, protocol); sequence != nil {
				if err := console.write("stdout", sequence); err != nil {
					return err
				}
				continue
			}
		}
		printed := showText && index == ofValue
		if showText && !printed {
			var err error
			if printed, err = printText(display, console); err != nil {
				return err
			}
		}
		if !printed || strings.HasPrefix(display.MIMEType(), "image/") {
			left++
		}
	}
	if left > 0 {
		console.info("displays not shown: %d (--output-dir DIR saves them)", left)
	}
	return nil
}

// displayOfValue returns the index of the display of the last expression, or -1 if it has none. Figures may follow it.
func displayOfValue(result *pyexec.Result) int {
	for index, display := range slices.Backward(result.Displays) {
		text, err := display.Content("text/plain")
		if err == nil && result.Value != nil && string(text) == *result.Value {
			return index
		}
	}
	return -1
}

// printText prints the plain text of a display. It returns false if the display has none.
func printText(display pyexec.Display, console *console) (bool, error) {
	text, err := display.Content("text/plain")
	if err != nil {
		return false, nil
	}
	return true, console.write("stdout", append(slices.Clone(text), '\n'))
}

func saveDisplays(displays []pyexec.Display, directory string, console *console, first int) error {
	if err := os.MkdirAll(directory, 0o777); err != nil {
		return err
	}
	for index, display := range displays {
		content, err := display.Content("")
		if err != nil {
			return fmt.Errorf("cannot read display %d: %w", first+index, err)
		}
		target := filepath.Join(directory, fmt.Sprintf("display-%d%s", first+index, display.Suffix()))
		if err := os.WriteFile(target, content, 0o666); err != nil {
			return err
		}
		console.info("wrote %s", target)
	}
	return nil
}

// findProtocol returns the protocol with which standard output shows images, or an empty string. If no variable names
// one, it asks the terminal.
func findProtocol(displays []pyexec.Display, ask bool) string {
	known := declaredProtocol()
	hasImage := func(display pyexec.Display) bool { return display.Data["image/png"] != nil }
	if known != "" || !ask || !slices.ContainsFunc(displays, hasImage) {
		return known
	}
	name := os.Getenv("TERM")
	if name != "" && name != "dumb" && term.IsTerminal(int(os.Stdout.Fd())) && hasSixel() {
		return "sixel"
	}
	return ""
}

// declaredProtocol returns the protocol that variables name for standard output, or an empty string if it is not a
// terminal, or none is named.
func declaredProtocol() string {
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return protocolFromEnv()
	}
	return ""
}

// protocolFromEnv returns the protocol with which the terminal shows images, or an empty string. Terminals that can show
// images say so in a variable. Multiplexers pass the variable on, but not the images.
func protocolFromEnv() string {
	name := os.Getenv("TERM")
	hasPrefix := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	if os.Getenv("TMUX") != "" || slices.ContainsFunc([]string{"screen", "tmux", "dumb"}, hasPrefix) {
		return ""
	}
	if os.Getenv("KITTY_WINDOW_ID") != "" || name == "xterm-kitty" || name == "xterm-ghostty" {
		return "kitty"
	}
	program := os.Getenv("TERM_PROGRAM")
	if program == "iTerm.app" || program == "WezTerm" || os.Getenv("LC_TERMINAL") == "iTerm2" {
		return "iterm2"
	}
	return ""
}

// imageSequence returns the escape sequence that shows a PNG, or nil if it cannot be shown.
func imageSequence(content []byte, protocol string) []byte {
	if protocol == "sixel" {
		return sixelSequence(content)
	}
	text := base64.StdEncoding.EncodeToString(content)
	if protocol == "iterm2" {
		return fmt.Appendf(nil, "\x1b]1337;File=inline=1;size=%d:%s\a\n", len(content), text)
	}
	var out bytes.Buffer
	keys := "a=T,f=100,"
	for chunk := range slices.Chunk([]byte(text), kittyChunk) {
		more := 1
		if text = text[len(chunk):]; text == "" {
			more = 0
		}
		fmt.Fprintf(&out, "\x1b_G%sm=%d;%s\x1b\\", keys, more, chunk)
		keys = ""
	}
	out.WriteByte('\n')
	return out.Bytes()
}
