package pyexec

import (
	"path"
	"regexp"
	"strings"
)

// What of a directory is not sent. The Python client follows the same rules, and both read
// tests/wire/ignore.json in their tests. The patterns, in this order, the last one that matches decides:
//
//  1. **/.git, **/__pycache__, **/.venv, **/node_modules;
//  2. the lines of the file .dockerignore at the directory's root, read as Docker reads them.
//
// Patterns are matched against the whole path, relative to the root: * stands for any characters but /, ? for
// one, [a-z] and [^a-z] for one of a class, **/ for any number of directories (none included), ** at the end
// for everything below, and \ takes away the next character's meaning. ! at a line's start makes an exception.
// A pattern that matches a directory matches everything in it.
var always = []string{"**/.git", "**/__pycache__", "**/.venv", "**/node_modules"}

// IgnoreRules are the rules in force for one directory.
type IgnoreRules struct{ patterns []pattern }

type pattern struct {
	text      string
	regex     *regexp.Regexp
	exception bool
}

// ParseIgnoreRules reads the text of a .dockerignore; an ArgumentError names a line that cannot be read.
func ParseIgnoreRules(dockerignore string) (IgnoreRules, error) {
	var rules IgnoreRules
	lines := lineEnds.Split(strings.TrimPrefix(dockerignore, "\ufeff"), -1)
	for index, line := range append(always[:len(always):len(always)], lines...) {
		if index >= len(always) && strings.HasPrefix(line, "#") {
			continue
		}
		made, err := compile(line)
		if err != nil {
			return IgnoreRules{}, err
		}
		if made != nil {
			rules.patterns = append(rules.patterns, *made)
		}
	}
	return rules, nil
}

// Ignores says whether the file or directory at this relative path is left out.
func (r IgnoreRules) Ignores(name string) bool {
	ignored := false
	for _, pattern := range r.patterns {
		if pattern.matches(name) {
			ignored = !pattern.exception
		}
	}
	return ignored
}

// prunes says whether nothing below this ignored directory can be an exception.
func (r IgnoreRules) prunes(directory string) bool {
	for _, pattern := range r.patterns {
		if pattern.exception && strings.HasPrefix(pattern.text+"/", directory+"/") {
			return false
		}
	}
	return true
}

// matches says whether the path or a directory above it matches.
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
		return nil, argumentError(".dockerignore: cannot read the pattern '%s': %v", strings.TrimSpace(line), err)
	}
	return &pattern{text, regex, exception}, nil
}

var (
	lineEnds  = regexp.MustCompile(`\r\n|[\n\r\v\f\x1c-\x1e\x{85}\x{2028}\x{2029}]`)
	wildcards = regexp.MustCompile(`(?s)\*\*\z|\*\*/?|\*|\?|\[\^?(?:\\.|[^\]\\])+\]|\\.`)
)

// translate gives the regular expression for a pattern, to be matched in full.
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
