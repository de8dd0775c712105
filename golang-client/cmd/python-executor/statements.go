package main

import (
	"regexp"
	"slices"
	"strings"
)

// statements collects the lines of a statement until it is complete. It decides as Python does whether more lines are
// needed, without a parser: the server reports errors of syntax.
//
// On a terminal, a blank line ends a block, as in Python. In a file (fromFile), blocks may contain blank lines: a block
// ends before the next line that does not belong to it. While a bracket or a string is open, and in a block, lines of
// a file are not scanned again.
type statements struct {
	fromFile bool
	lines    []string
	nesting  nesting
	isBlock  bool // the statement goes on until a line that does not belong to its block
}

// nesting records the brackets and the string that the lines so far leave open.
type nesting struct {
	depth int
	quote string
}

func (n *nesting) isOpen() bool { return n.depth > 0 || n.quote != "" }

// add counts what the next line opens and closes.
func (n *nesting) add(line string) {
	for position := 0; position < len(line); position++ {
		rest := line[position:]
		switch letter := line[position]; {
		case letter == '\\':
			position++
		case n.quote != "":
			if strings.HasPrefix(rest, n.quote) {
				position += len(n.quote) - 1
				n.quote = ""
			}
		case letter == '#':
			return
		case letter == '"' || letter == '\'':
			n.quote = line[position : position+1]
			if strings.HasPrefix(rest, strings.Repeat(n.quote, 3)) {
				n.quote = rest[:3]
				position += 2
			}
		case strings.IndexByte("([{", letter) >= 0:
			n.depth++
		case strings.IndexByte(")]}", letter) >= 0:
			n.depth--
		}
	}
	if len(n.quote) == 1 && !strings.HasSuffix(line, "\\") {
		n.quote = "" // it ends with its line; the server reports the error
	}
}

// clause begins a line that belongs to the block before it, although it is not indented.
var clause = regexp.MustCompile(`^(?:else|elif|except|finally)\b`)

func (s *statements) isEmpty() bool { return len(s.lines) == 0 }

// takeBefore returns the block of a file that ends before this line, if there is one and the line does not continue it.
func (s *statements) takeBefore(line string) (string, bool) {
	continues := strings.TrimSpace(line) == "" || strings.ContainsAny(line[:1], " \t#") || clause.MatchString(line)
	if s.isEmpty() || !s.isScript() || s.nesting.isOpen() || continues {
		return "", false
	}
	if strings.HasSuffix(s.lines[len(s.lines)-1], "\\") || !s.isComplete(append(slices.Clone(s.lines), "")) {
		return "", false
	}
	return s.take(), true
}

// add adds a line. It returns the statement if it is complete.
func (s *statements) add(line string) (string, bool) {
	s.lines = append(s.lines, line)
	if strings.TrimSpace(line) == "" && strings.TrimSpace(strings.Join(s.lines, "\n")) == "" {
		s.lines = nil
		return "", false
	}
	if s.isScript() {
		s.nesting.add(line)
		if s.nesting.isOpen() || s.isBlock {
			return "", false
		}
	}
	if !s.isComplete(s.lines) {
		s.isBlock = s.isScript() && !strings.HasSuffix(line, "\\")
		return "", false
	}
	if s.isScript() && (strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#")) {
		return "", false
	}
	return s.take(), true
}

// take returns the lines so far, and begins the next statement.
func (s *statements) take() string {
	source := strings.Join(s.lines, "\n")
	*s = statements{fromFile: s.fromFile}
	return source
}

var blockStart = regexp.MustCompile(`^\s*(?:@|(?:if|while|for|try|with|def|class|async)\b)`)

// isScript is true for statements of a file, in which blocks may contain blank lines.
func (s *statements) isScript() bool { return s.fromFile && !s.isCellMagic() }

func (s *statements) isCellMagic() bool {
	return strings.HasPrefix(strings.TrimLeft(s.lines[0], " \t"), "%%")
}

func (s *statements) isComplete(lines []string) bool {
	first := strings.TrimLeft(lines[0], " \t")
	lastIsBlank := strings.TrimSpace(lines[len(lines)-1]) == ""
	if s.isCellMagic() {
		return lastIsBlank
	}
	if strings.HasPrefix(first, "%") || strings.HasPrefix(first, "!") || strings.HasPrefix(first, "?") {
		return true
	}
	code, open := scan(strings.Join(lines, "\n"))
	if open {
		return false
	}
	code = strings.TrimRight(code, " \t\n")
	isBlock := blockStart.MatchString(strings.TrimLeft(code, "\n")) || strings.HasSuffix(code, ":") ||
		len(lines) > 1 && strings.Contains(code, ":\n")
	if !isBlock {
		return true
	}
	return lastIsBlank && !strings.HasSuffix(code, ":") && !endsWithDecorator(code)
}

func endsWithDecorator(code string) bool {
	return strings.HasPrefix(strings.TrimLeft(code[strings.LastIndex(code, "\n")+1:], " \t"), "@")
}

// scan returns the source without comments, and with the contents of strings and brackets left out. open is true if a
// bracket, a string of three quotes or a line with a backslash is not finished.
func scan(source string) (code string, open bool) {
	var kept strings.Builder
	depth := 0
	for position := 0; position < len(source); position++ {
		rest := source[position:]
		switch letter := source[position]; {
		case letter == '#':
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				return kept.String(), depth > 0
			}
			position += end - 1
		case letter == '"' || letter == '\'':
			length, closed := stringLength(rest)
			if !closed {
				return kept.String(), true
			}
			position += length - 1
			kept.WriteByte('"')
		case strings.IndexByte("([{", letter) >= 0:
			depth++
			kept.WriteByte(letter)
		case strings.IndexByte(")]}", letter) >= 0:
			if depth--; depth < 0 {
				return kept.String(), false
			}
			kept.WriteByte(letter)
		case letter == '\\' && strings.HasPrefix(rest, "\\\n"):
			position++
		case letter == '\\' && position == len(source)-1:
			return kept.String(), true
		case depth == 0:
			kept.WriteByte(letter)
		}
	}
	return kept.String(), depth > 0
}

// stringLength returns the length of the string that text begins with. A string of one quote ends with its line; the
// server reports what is wrong with it.
func stringLength(text string) (length int, closed bool) {
	quote := text[:1]
	if strings.HasPrefix(text, strings.Repeat(quote, 3)) {
		quote = text[:3]
	}
	for position := len(quote); position < len(text); position++ {
		switch {
		case text[position] == '\\':
			position++
		case strings.HasPrefix(text[position:], quote):
			return position + len(quote), true
		case len(quote) == 1 && text[position] == '\n':
			return position, true
		}
	}
	return len(text), len(quote) == 1 && !strings.HasSuffix(text, "\\")
}
