package pyexec

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// alwaysIgnored are the patterns that apply to every directory.
var alwaysIgnored = []string{"**/.git", "**/__pycache__", "**/.venv", "**/node_modules"}

// IgnoreRules are the rules for the files of one directory that are not sent. The Python client implements the same
// rules; the tests of both read tests/wire/ignore.json.
//
// The last pattern that matches a path decides. The patterns are, in this order:
//
//  1. **/.git, **/__pycache__, **/.venv, **/node_modules;
//  2. the lines of the file .dockerignore at the root of the directory, read as Docker reads them.
//
// A pattern is compared with the whole path relative to the root, with / between the names:
//
//   - * matches any characters except /, ? matches one such character;
//   - [a-z] and [^a-z] match one character of a class;
//   - **/ matches any number of directories, including none; ** at the end matches everything below;
//   - \ escapes the next character.
//
// A pattern that matches a directory matches everything in it. A line that begins with ! is an exception: files
// that match the rest of the line are sent.
type IgnoreRules struct{ patterns []pattern }

type pattern struct {
	text      string
	regex     *regexp.Regexp
	exception bool
}

// ParseIgnoreRules parses the text of a .dockerignore. It fails with an [ArgumentError] for an invalid line.
func ParseIgnoreRules(dockerignore string) (IgnoreRules, error) {
	var rules IgnoreRules
	lines := lineEnds.Split(strings.TrimPrefix(dockerignore, "\ufeff"), -1)
	for index, line := range slices.Concat(alwaysIgnored, lines) {
		if index >= len(alwaysIgnored) && strings.HasPrefix(line, "#") {
			continue
		}
		compiled, err := compile(line)
		if err != nil {
			return IgnoreRules{}, err
		}
		if compiled != nil {
			rules.patterns = append(rules.patterns, *compiled)
		}
	}
	return rules, nil
}

// Ignores reports whether the file or directory at this relative path is not sent.
func (r IgnoreRules) Ignores(name string) bool {
	ignored := false
	for _, pattern := range r.patterns {
		if pattern.matches(name) {
			ignored = !pattern.exception
		}
	}
	return ignored
}

// prunes reports whether no exception can match anything in this ignored directory.
func (r IgnoreRules) prunes(directory string) bool {
	for _, pattern := range r.patterns {
		if pattern.exception && strings.HasPrefix(pattern.text+"/", directory+"/") {
			return false
		}
	}
	return true
}

// matches reports whether the pattern matches the path or one of its parent directories.
func (p pattern) matches(name string) bool {
	for end := 0; end < len(name); {
		next := strings.IndexByte(name[end:], '/')
		if next < 0 {
			return p.regex.MatchString(name)
		}
		if p.regex.MatchString(name[:end+next]) {
			return true
		}
		end += next + 1
	}
	return false
}

func compile(line string) (*pattern, error) {
	text := strings.TrimSpace(line)
	exception := strings.HasPrefix(text, "!")
	text = strings.TrimSpace(strings.TrimPrefix(text, "!"))
	if text == "" {
		if exception {
			return nil, argumentError(`.dockerignore: "!" must be followed by a pattern`)
		}
		return nil, nil
	}
	text = strings.TrimLeft(path.Clean(text), "/")
	if text == "." || text == "" {
		return nil, nil
	}
	regex, err := regexp.Compile(`(?s)\A(?:` + translate(text) + `)\z`)
	if err != nil {
		return nil, argumentError(".dockerignore: invalid pattern '%s': %v", strings.TrimSpace(line), err)
	}
	return &pattern{text, regex, exception}, nil
}

var (
	lineEnds  = regexp.MustCompile(`\r\n|[\n\r\v\f\x1c-\x1e\x{85}\x{2028}\x{2029}]`)
	wildcards = regexp.MustCompile(`(?s)\*\*\z|\*\*/?|\*|\?|\[\^?(?:\\.|[^\]\\])+\]|\\.`)
)

// translate translates a pattern to a regular expression, without anchors.
func translate(text string) string {
	var out strings.Builder
	position := 0
	for _, at := range wildcards.FindAllStringIndex(text, -1) {
		out.WriteString(regexp.QuoteMeta(text[position:at[0]]))
		position = at[1]
		switch found := text[at[0]:at[1]]; {
		case found == "**" && at[1] == len(text):
			out.WriteString(".*")
		case strings.HasPrefix(found, "**"):
			out.WriteString("(?:.*/)?")
		case found == "*":
			out.WriteString("[^/]*")
		case found == "?":
			out.WriteString("[^/]")
		case found[0] == '\\':
			out.WriteString(regexp.QuoteMeta(found[1:]))
		default:
			inside := strings.TrimPrefix(found[1:len(found)-1], "^")
			negated := found[1 : len(found)-len(inside)-1]
			out.WriteString("[" + negated + strings.ReplaceAll(inside, "[", `\[`) + "]")
		}
	}
	return out.String() + regexp.QuoteMeta(text[position:])
}
