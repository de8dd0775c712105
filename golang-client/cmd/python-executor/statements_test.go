package main

import (
	"slices"
	"strings"
	"testing"
)

func TestStatements(t *testing.T) {
	for _, statement := range []string{
		"x = 1",
		"x = [\n  6,\n]",
		"f(1,\n\n  2)",
		"s = '''one\n\ntwo'''",
		"s = \"it's # no comment: \"",
		"if x:\n  pass\n",
		"if x: pass\n",
		"def f(n):\n  # a comment\n\n  return n\n",
		"for n in x:\n  print(n)\nelse:\n  print('end')\n",
		"@cache\ndef f():\n  return 1\n",
		"class A:\n  def f(self):\n    return {1: 2}\n",
		"x = 1 + \\\n  2",
		"match x:\n  case 1:\n    pass\n",
		"async def f():\n  await g()\n",
		"with open('x') as f: # why:\n  pass\n",
		"x = {'a': 1}",
		"y: int = 3",
		"%%time\nx = 1\n",
		"%timeit x",
		"!ls | cat",
		"x = 'broken",
		"x = )",
		"lambda: 1",
	} {
		var typed statements
		lines := strings.Split(statement, "\n")
		for index, line := range lines {
			code, complete := typed.add(line)
			if complete != (index == len(lines)-1) {
				t.Errorf("%q is complete: %v, after line %d", statement, complete, index+1)
				break
			}
			if complete && code != statement {
				t.Errorf("%q became %q", statement, code)
			}
		}
	}
	var typed statements
	if code, complete := typed.add("  "); complete || !typed.isEmpty() {
		t.Errorf("a blank line is no statement: %q", code)
	}
}

// If each line scanned the whole statement again, this would take minutes.
func TestLongStatementsOfAFile(t *testing.T) {
	for _, each := range []struct{ first, line, last string }{
		{"x = {", "  'k': [1, \"v\"],", "}"},
		{"class A:", "  def f(self): return (\n  1)", ""},
	} {
		long := each.first + strings.Repeat("\n"+each.line, 50_000) + "\n" + each.last
		found := split(long + "\nprint(x)")
		if !slices.Equal(found, []string{long, "print(x)"}) {
			t.Errorf("%s: %d statements", each.first, len(found))
		}
	}
}

// split returns the statements of a file, as repl does.
func split(code string) []string {
	var found []string
	typed := statements{fromFile: true}
	for _, line := range strings.Split(code, "\n") {
		if before, isComplete := typed.takeBefore(line); isComplete {
			found = append(found, before)
		}
		if statement, isComplete := typed.add(line); isComplete {
			found = append(found, statement)
		}
	}
	if !typed.isEmpty() {
		found = append(found, typed.take())
	}
	return found
}
